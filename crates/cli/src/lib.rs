//! The command line of the `polylance` binary: arguments, commands and what they show. Jobs are the engine's.

mod args;
mod cli;
mod commands;
mod error;
mod exit;
mod interrupt;
mod jobs;
mod lines;
mod output;

pub use cli::main;
