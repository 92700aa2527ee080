//! Sets of ids that take little memory however many ids there are: what does not fit is on disk.

mod seen;
mod sorted_run;

pub use seen::SeenIds;
pub use sorted_run::{SortedRun, hash};
