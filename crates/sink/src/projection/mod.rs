//! The map of a table: its vectors projected to two dimensions.

mod map;
mod principal_axes;

pub use map::{MapOutcome, compute_map};
