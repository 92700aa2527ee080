//! What a user sees: results on stdout, messages and progress on stderr.

pub(crate) mod advice;
pub(crate) mod batch;
mod printer;
pub(crate) mod progress;
pub(crate) mod whole_file;

pub(crate) use printer::{Printer, counted, stderr_color, thousands};
