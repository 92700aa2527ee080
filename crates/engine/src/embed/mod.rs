//! Embedding: from a pipeline to a plan, and the plan's run.

mod backend;
mod cluster;
mod from_pipeline;
mod job;
mod observer;
mod pipeline_hash;
mod shard;
mod summary;
mod unchanged;

use std::fmt;

use datafusion::physical_plan::display::DisplayableExecutionPlan;
use polylance_config::Pipeline;
use polylance_dataflow::RowSet;
use polylance_schema::Shard;
use polylance_sink::Declared;

use self::backend::PipelineBackend;
use crate::{EngineError, ResolvedColumn, ShutdownSignal, UsageError, resolve};

pub use cluster::{ClusterJob, ClusterOptions, ExecutorModels};
pub use job::{Job, Limits, OpenJob, Planned, run_job};
pub use observer::{Observer, Stage};
pub use shard::shard_of_environment;
pub use summary::{RunSummary, peak_memory};

/// Options of a run that are not in its pipeline.
#[derive(Debug, Default)]
pub struct EmbedOptions {
    /// Read the source even if none of its files changed since the last complete run.
    pub reread: bool,
    /// Embed only these rows of the source.
    pub only: Option<RowSet>,
    /// Embed only this part of the source.
    pub shard: Option<Shard>,
    /// Embed on this cluster.
    pub cluster: Option<ClusterOptions>,
}

/// A pipeline whose configuration, source, table and contract were checked. No model is loaded yet.
#[derive(Debug)]
pub struct EmbedPlan {
    planned: Planned,
    columns: Vec<ResolvedColumn>,
}

/// A run that ended.
#[derive(Debug)]
pub struct Embedded {
    /// Its result.
    pub summary: RunSummary,
    /// The columns that the pipeline annotates; older rows may lack their values.
    pub columns: Vec<ResolvedColumn>,
    /// The plan with the rows and times of each operator, as `EXPLAIN ANALYZE` shows it.
    pub analyzed_plan: String,
}

impl EmbedPlan {
    /// Finds the source, the table, the model's files and those of its heads, and plans the run.
    ///
    /// # Errors
    /// [`EngineError`], before anything is read, loaded or written.
    pub async fn open(pipeline: &Pipeline, options: EmbedOptions) -> Result<Self, EngineError> {
        let job = Job { reread: options.reread, shard: options.shard, ..Job::from(pipeline) };
        if options.only.is_some() && job.source.is_stdin() {
            let error = UsageError::new("the rows of standard input cannot be read again");
            return Err(error.with_hint("run the pipeline again with the same input: it retries them").into());
        }
        let mut open = Box::pin(job.open()).await?;
        if let Some(rows) = options.only {
            open = open.only(rows);
        }
        let selection = match options.cluster {
            Some(cluster) => {
                let selection = resolve::select_for_cluster(pipeline).await?;
                open = open.on_cluster(ClusterJob::new(cluster, pipeline, selection.dtype)?)?;
                selection
            }
            None => resolve::select(pipeline).await?,
        };
        let PipelineBackend { backend, contract, columns, fields } =
            Box::pin(PipelineBackend::open(pipeline, &selection)).await?;
        let planned = Box::pin(open.plan(&backend, contract, fields)).await?;
        Ok(Self { planned, columns })
    }

    /// The columns that the pipeline annotates.
    pub fn columns(&self) -> &[ResolvedColumn] {
        &self.columns
    }

    /// Declares the columns that the embedding's pass fills, and returns how each was declared. A column of a different
    /// head is emptied.
    ///
    /// # Errors
    /// [`EngineError::Sink`] if a column of that name is not an annotation.
    pub async fn declare(&self) -> Result<Vec<(&str, Declared)>, EngineError> {
        let declared = self.planned.declare().await?;
        let fused = self.columns.iter().filter(|column| column.is_fused()).map(ResolvedColumn::name);
        Ok(fused.zip(declared).collect())
    }

    /// The signal that stops the run before the source's end.
    pub fn shutdown(&self) -> ShutdownSignal {
        self.planned.shutdown()
    }

    /// Runs the plan to its end, or until it is stopped. The model is loaded if there is a row to embed. Dropping the
    /// future ends the run at once: committed rows stay, and another run continues from there.
    ///
    /// # Errors
    /// [`EngineError`]; rows committed before stay in the table.
    pub async fn run(self, observer: &mut dyn Observer) -> Result<Embedded, EngineError> {
        let Self { planned, columns } = self;
        let plan = planned.plan();
        let summary = Box::pin(planned.run(observer)).await?;
        let analyzed_plan = DisplayableExecutionPlan::with_metrics(plan.as_ref()).indent(true).to_string();
        Ok(Embedded { summary, columns, analyzed_plan })
    }
}

impl fmt::Display for EmbedPlan {
    /// The plan as `EXPLAIN` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.planned)
    }
}
