//! Writing: gathers documents, writes their rows to data files, and closes windows.

mod data_files;
pub(crate) mod documents;
mod exec;
pub(crate) mod field_ids;
mod merge;
pub(crate) mod next_batch;
pub(crate) mod window;

pub use exec::{LanceWriteExec, QUARANTINED_METRIC};
pub use merge::WindowMerger;
pub use window::window_schema;
