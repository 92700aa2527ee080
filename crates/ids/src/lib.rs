//! Sets of ids in a fixed amount of memory: the rest spills to disk.

mod seen;
mod sorted_run;

pub use seen::SeenIds;
pub use sorted_run::{SortedRun, hash};
