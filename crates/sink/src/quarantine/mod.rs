//! The quarantine: a table next to the main one with the rows that could not be embedded or annotated, and why.

pub(crate) mod outdated;
pub(crate) mod rows;
pub(crate) mod write;

pub use outdated::{drop_outdated, quarantine_version};
pub use rows::{
    QuarantineFilter, QuarantinedRow, count_quarantined, drop_quarantined, quarantined_rows, quarantined_sources,
};
