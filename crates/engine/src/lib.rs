//! Jobs as a library: resolve a pipeline, open it, plan it, run it.
//!
//! The command line calls this crate, and any other program can. Nothing here parses arguments or prints: progress goes
//! to an [`Observer`], and results are values that serialize.
//!
//! ```no_run
//! # async fn embed() -> Result<(), polylance_engine::EngineError> {
//! use polylance_config::{Pipeline, Source, Table};
//! use polylance_engine::{EmbedOptions, EmbedPlan};
//!
//! let pipeline = Pipeline::new(Source::new("docs.jsonl"), Table::new("docs.lance"));
//! let plan = EmbedPlan::open(&pipeline, EmbedOptions::default()).await?; // no model is loaded yet
//! println!("{plan}");
//! let done = plan.run(&mut ()).await?;
//! println!("{} documents written", done.summary.rows_written);
//! # Ok(())
//! # }
//! ```

mod aborted;
mod annotate;
pub mod devices;
mod draft;
mod embed;
mod error;
mod explain;
pub mod fit;
mod lazy_pool;
pub mod models;
mod push;
pub mod resolve;

pub use annotate::{AnnotateRequest, AnnotationJob, AnnotationSummary, OpenAnnotation, OpenColumn, ResolvedColumn};
pub use draft::{IdChoice, PipelineDraft, TextChoice};
pub use embed::{
    ClusterJob, ClusterOptions, EmbedOptions, EmbedPlan, Embedded, ExecutorModels, Job, Limits, Observer, OpenJob,
    Planned, RunSummary, Stage, peak_memory, run_job, shard_of_environment,
};
pub use error::{EngineError, UsageError};
pub use explain::{Explanation, causes, damage_behind, explain};
pub use polylance_dataflow::{ShutdownSignal, SourceProgress};
pub use polylance_hub::Visibility;
pub use push::{PushRequest, PushSummary, push};
