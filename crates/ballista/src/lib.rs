//! The processes of a cluster: scheduler, executors and their client, on Ballista.
//!
//! Ballista is used as a task queue: each split is a job of its own, with one task and one row. Results go through the
//! object store, errors are results, and the run decides about attempts: so nothing depends on messages that arrive, or
//! on the state of a scheduler. `docs/decisions/cluster.md` has the reasons.

mod address;
mod client;
mod codec;
mod executor;
mod guard;
mod plan;
mod scheduler;
mod split_exec;
mod stage;
mod status;

pub use address::{DEFAULT_PORT, SchedulerAddress};
pub use client::{BallistaEngine, cluster_status};
pub use executor::{ExecutorOptions, host_name, run_executor};
pub use scheduler::BoundScheduler;
pub use status::{ClusterStatus, ExecutorStatus};
