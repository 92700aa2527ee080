//! Commands, output and jobs of the `polylance` binary.
//!
//! [`job`] joins source, devices and table and is all that a test or another program needs; the rest is the
//! command line around it.

pub mod annotation;
mod backend;
mod batch;
mod cli;
mod commands;
mod error;
mod exit;
mod interrupt;
pub mod job;
mod pipeline;
mod printer;
mod progress;

pub use cli::main;
