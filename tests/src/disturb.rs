//! Disturbs a process: its disk, or its clock.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::repository;

/// Compiles `tests/disturb/disturb.c` into a folder; a process with it in `LD_PRELOAD` is disturbed as its environment
/// says.
pub fn disturb(folder: &Path) -> PathBuf {
    let library = folder.join("disturb.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(repository().join("tests/disturb/disturb.c"));
    assert!(compiler.arg("-ldl").status().expect("a C compiler").success(), "the preloaded library compiles");
    library
}
