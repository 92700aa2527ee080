//! The models that this user has named before, by which a table may load one.
//!
//! A table comes from anywhere, and its metadata names a model: a repository of the hub, or a folder. Loading what it names
//! fetches and reads what its author chose. So a table's model is loaded only when the user has named it: now, or in a
//! command before. Each model that a command names is remembered in a file of its own.

use std::{
    env, fs, io,
    path::{self, Path, PathBuf},
};

use polylance_encoder::{ModelError, ModelFiles};
use polylance_schema::Contract;

use crate::UsageError;

/// Models that the binary carries.
const BUILTIN: &str = "builtin:";

/// Which models that tables name are loaded.
#[derive(Debug, Clone, Default)]
pub struct TableModelPolicy {
    /// Where the tables' model is now, when it has moved, or when it was not used on this machine yet.
    pub model: Option<String>,
    /// Fetch and load whatever model a table names: only for tables whose author is trusted.
    pub trust: bool,
}

impl TableModelPolicy {
    /// The model to load for a table of this contract.
    ///
    /// # Errors
    /// [`UsageError`] when the table names a model that the user has not.
    pub fn model_of(&self, contract: &Contract) -> Result<String, UsageError> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let model = &contract.model;
        let known = || folder().is_some_and(|folder| is_known(&folder, model));
        if model.starts_with(BUILTIN) || self.trust || known() {
            return Ok(model.clone());
        }
        let message = format!("the table names the model {model:?}, which no command has used on this machine");
        let hint = "name the model with --model, or load what the table names with --trust-table-model";
        Err(UsageError::new(message).with_hint(hint))
    }
}

/// Finds a model that the user has named, and remembers it.
///
/// # Errors
/// Those of [`ModelFiles::find`].
pub fn find(model: &str) -> Result<ModelFiles, ModelError> {
    let files = ModelFiles::find(model)?;
    remember(model);
    Ok(files)
}

/// From now on tables may load the model.
pub fn remember(model: &str) {
    if model.starts_with(BUILTIN) {
        return;
    }
    // Where nothing can be kept, the user names the model again.
    let _kept = folder().map(|folder| write(&folder, model));
}

/// Where programs of this user keep what they know of their past.
fn folder() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Some(state.or_else(home)?.join("polylance/models"))
}

fn write(folder: &Path, model: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let name = if Path::new(model).exists() { at_place(model) } else { on_hub(model) };
    fs::write(folder.join(key(&name)), format!("{name}\n"))
}

/// Whether a model of this name was remembered. Nothing of what the table names is looked at.
fn is_known(folder: &Path, model: &str) -> bool {
    [at_place(model), on_hub(model)].iter().any(|name| folder.join(key(name)).is_file())
}

fn on_hub(model: &str) -> String {
    format!("hub {model}")
}

/// A relative path is another place elsewhere.
fn at_place(model: &str) -> String {
    let place = path::absolute(model).unwrap_or_else(|_| PathBuf::from(model));
    format!("path {}", place.display())
}

fn key(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_once_it_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let known = |model: &str| is_known(&folder.path().join("models"), model);
        let place = folder.path().join("own").display().to_string();
        fs::create_dir(&place).unwrap();
        for model in ["org/model", place.as_str()] {
            assert!(!known(model), "{model}");
            write(&folder.path().join("models"), model).unwrap();
            assert!(known(model), "{model}");
        }
        assert!(known(&format!("{place}/.")));
        for other in ["org/model2", "../org/model", "/org/model", "hub org/model", "own"] {
            assert!(!known(other), "{other}");
        }
    }
}
