//! Output: results on stdout, messages and progress on stderr.

pub(crate) mod advice;
pub(crate) mod atomic_file;
pub(crate) mod input_progress;
mod printer;
pub(crate) mod progress;
pub(crate) mod rows;

pub(crate) use printer::{NO_INDEX, Printer, counted, peak_memory, stderr_color, thousands};
