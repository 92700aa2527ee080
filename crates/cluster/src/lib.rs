//! Embedding on many machines.
//!
//! The machine that drives a run cuts the source into splits and sends each to an executor as a [`SplitTask`]: what to
//! embed, not how. A [`SplitRunner`] there makes the plan for its own devices, writes data files, and leaves a
//! [`SplitResult`] in the run's outbox. [`ClusterExec`] takes the results in the order of the source, so the commit
//! operator above it makes the table that a local run makes. Tasks may be lost, late, or run twice: an [`Engine`] only
//! has to run them now and then.

mod cluster_exec;
mod driver;
mod engine;
mod error;
mod in_process;
mod keys;
mod models;
mod order;
mod result;
mod runner;
mod task;

pub use cluster_exec::{ClusterExec, ClusterSettings, ClusterSpec};
pub use engine::{Engine, JobId, JobStatus};
pub use error::ClusterError;
pub use in_process::{Fate, InProcessEngine};
pub use models::{ModelFailure, Models, SplitModel};
pub use result::{FailureKind, SplitFailure, SplitResult, SplitSummary};
pub use runner::SplitRunner;
pub use task::{Envelope, SplitTask, TASK_FORMAT, TaskKind, TaskTarget, shared_address};
