//! Commits: each window becomes one version of the table, with retries when other writers commit first.

mod exec;
pub(crate) mod known_rows;
pub mod properties;
pub(crate) mod report;
pub(crate) mod retry;
pub(crate) mod transaction;

pub use exec::LanceCommitExec;
pub use report::{CommitReport, FillReport};
pub use transaction::data_files_exist;
