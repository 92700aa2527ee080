//! Writing: gathers documents, writes their rows to data files, and closes windows.

mod data_files;
pub(crate) mod documents;
mod exec;
pub(crate) mod field_ids;
pub(crate) mod next_batch;
pub(crate) mod window;

pub use exec::LanceWriteExec;
pub(crate) use exec::QUARANTINED_METRIC;
