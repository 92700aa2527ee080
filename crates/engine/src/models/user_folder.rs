//! Folders of the user that belong to this program.

use std::{env, path::PathBuf};

/// What the program remembers: `$XDG_STATE_HOME/polylance`.
pub(super) fn state_folder() -> Option<PathBuf> {
    folder("XDG_STATE_HOME", ".local/state")
}

/// What the program can fetch again: `$XDG_CACHE_HOME/polylance`.
pub(super) fn cache_folder() -> Option<PathBuf> {
    folder("XDG_CACHE_HOME", ".cache")
}

/// The folder of the variable, if it is an absolute path, else the one in the user's home.
fn folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(in_home));
    Some(named.or_else(home)?.join("polylance"))
}
