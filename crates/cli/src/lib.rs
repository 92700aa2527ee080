//! Commands, output and jobs of the `polylance` binary.
//!
//! [`job`] joins source, devices and table and is all that a test or another program needs; the rest is the
//! command line around it.

mod advice;
mod age;
mod annotate;
pub mod annotation;
mod backend;
mod batch;
mod cli;
mod commands;
mod entities;
mod error;
mod exit;
mod interrupt;
pub mod job;
mod known_models;
mod lines;
mod model_args;
mod named;
mod pipeline;
mod printer;
mod progress;
mod spans;
mod table_model;
mod task_args;
mod token_features;
mod whole_file;

pub use cli::main;
