//! The command line of the `polylance` binary: arguments, commands and their output. Jobs are the engine's.

mod args;
mod cli;
mod commands;
mod error;
mod exit;
mod jobs;
mod output;
#[cfg(test)]
mod reference;
mod report;
mod shutdown;
mod stdin;

pub use cli::{main, run_arguments};
