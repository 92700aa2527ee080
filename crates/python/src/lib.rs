//! The native half of the Python package `polylance`: jobs, tables and models, with Arrow streams in and out.
//!
//! Every function releases the interpreter's lock while Rust works and runs Python's signal handlers meanwhile, so that
//! Ctrl-C commits and stops. Errors are those of the command line, as the exceptions of `polylance.errors`.

mod annotate;
mod embed;
mod encoder;
mod error;
mod progress;
mod table;
mod wait;

use std::path::PathBuf;

use pyo3::prelude::*;

/// The native half of `polylance`.
#[pymodule]
mod _polylance {
    #[pymodule_export]
    use super::{
        annotate::annotate,
        embed::{embed, run, spool},
        encoder::Encoder,
        main, set_model_folder,
        table::Table,
    };
}

/// The folder of the built-in model, if another package has it.
#[pyfunction]
fn set_model_folder(folder: PathBuf) {
    polylance_builtin::set_model_folder(folder);
}

/// The `polylance` command: parses the arguments, runs and returns the exit code.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| polylance_cli::run_arguments(arguments))
}
