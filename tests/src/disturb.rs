//! A preloaded library that disturbs the disk or the clock of a process.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::repository;

/// Compiles `tests/disturb/disturb.c` into a folder and returns the path. A process with it in `LD_PRELOAD` is disturbed
/// as its environment variables describe.
pub fn build_disturb_library(folder: &Path) -> PathBuf {
    let library = folder.join("disturb.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(repository().join("tests/disturb/disturb.c"));
    assert!(compiler.arg("-ldl").status().expect("a C compiler").success(), "the preloaded library compiles");
    library
}
