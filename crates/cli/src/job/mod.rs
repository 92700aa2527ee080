//! The job: source, devices and table joined in one plan.
//!
//! Checks come in the order of what they cost: [`Job::open`] finds the source's files and the table,
//! [`OpenJob::plan`] compares contracts, and a backend that loads its model when it is first used loads it
//! only when there is a row to embed.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration, time::Instant};

use arrow::{
    array::AsArray,
    datatypes::{Field, FieldRef, UInt64Type},
};
use datafusion::{
    error::DataFusionError,
    execution::{TaskContext, memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
    physical_plan::{ExecutionPlan, displayable},
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;
use polylance_backend::{BackendHandle, TokenizeSpec};
use polylance_dataflow::{RowSet, Source, SourceError, SourceSpec, plan_embeddings, progress};
use polylance_schema::{Contract, TextColumn};
use polylance_sink::{
    CommitPolicy, Declared, IndexOutcome, IndexSpec, SinkError, Table, TableTarget, UpkeepPolicy, Upkept,
    declare_columns, plan_commit, update_index, upkeep,
};
use serde::Serialize;
use uuid::Uuid;

pub use polylance_dataflow::SourceProgress;

/// Bytes that the plan's operators may hold: most of it is the table's ids and hashes, some 50 bytes a document.
const MEMORY: usize = 8 << 30;

/// How often an [`Observer`] hears of a running plan.
const TICK: Duration = Duration::from_millis(200);

/// What to embed, and where to.
#[derive(Debug, Clone)]
pub struct Job {
    /// The documents.
    pub source: SourceSpec,
    /// The table's address.
    pub table: String,
    /// Whether the table has the chunks' text.
    pub text: TextColumn,
    /// When rows are committed.
    pub commit: CommitPolicy,
    /// The table's vector index.
    pub index: IndexSpec,
    /// What is done for the table at the end of a run that wrote something.
    pub upkeep: UpkeepPolicy,
}

/// A job whose source and table were found.
#[derive(Debug)]
pub struct OpenJob {
    job: Job,
    source: Source,
    table: Option<Table>,
    only: Option<Arc<RowSet>>,
    run_id: String,
}

/// A job as a plan.
#[derive(Debug)]
pub struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    job: Job,
    run_id: String,
    version: Option<u64>,
    heads: Vec<FieldRef>,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// The run, as in the column `run_id`.
    pub run_id: String,
    /// The table's address.
    pub table: String,
    /// The table's version after the run.
    pub version: u64,
    /// Rows of the source.
    pub rows_read: u64,
    /// Rows that the table had already.
    pub rows_skipped: u64,
    /// Documents written.
    pub rows_written: u64,
    /// Rows of the table that they became.
    pub chunks_written: u64,
    /// Rows that went to the quarantine.
    pub rows_quarantined: u64,
    /// Ids encoded.
    pub tokens: u64,
    /// From the first row to the last commit and the index.
    pub seconds: f64,
    /// Ids a second.
    pub tokens_per_second: f64,
    /// The vector index as it stands.
    pub index: IndexOutcome,
    /// What was done for the table at the end; nothing when the run wrote nothing.
    pub upkeep: Upkept,
    /// Why the upkeep failed, when it did: the rows are committed all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upkeep_failure: Option<String>,
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Rows are read, encoded, written.
    Embedding,
    /// The index is brought up to date.
    Indexing,
}

/// Hears how far a job is. `()` hears nothing.
pub trait Observer: Send {
    /// A stage begins.
    fn stage(&mut self, _stage: Stage) {}
    /// Some rows further, several times a second.
    fn progress(&mut self, _progress: &SourceProgress) {}
    /// A commit has made this many documents safe since the run began.
    fn committed(&mut self, _documents: u64) {}
}

impl Observer for () {}

/// Why a job could not be opened or did not end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The table cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The plan failed; the error of ours inside is its root.
    #[error("{}", .0.find_root())]
    Plan(#[from] DataFusionError),
}

/// Opens, plans and runs a job.
///
/// # Errors
/// See [`JobError`].
pub async fn run(
    job: Job,
    backend: BackendHandle,
    contract: Contract,
    observer: &mut dyn Observer,
) -> Result<RunSummary, JobError> {
    job.open().await?.plan(&backend, contract, Vec::new())?.run(observer).await
}

impl Job {
    /// Finds the source's files and the table.
    ///
    /// # Errors
    /// [`JobError::Source`] or [`JobError::Sink`].
    pub async fn open(self) -> Result<OpenJob, JobError> {
        let source = Source::open(self.source.clone()).await?;
        let table = Table::open(&self.table).await?;
        Ok(OpenJob { job: self, source, table, only: None, run_id: Uuid::now_v7().to_string() })
    }
}

impl OpenJob {
    /// Embeds nothing but these rows of the source.
    #[must_use]
    pub fn only(self, rows: RowSet) -> Self {
        Self { only: Some(Arc::new(rows)), ..self }
    }

    /// Checks that the table has this contract and these columns, and plans the run. `heads` are the columns, with
    /// their contracts, that the backend's heads fill.
    ///
    /// # Errors
    /// [`JobError::Sink`] when the table is another's, [`JobError::Plan`] when the parts do not fit together.
    pub fn plan(self, backend: &BackendHandle, contract: Contract, heads: Vec<FieldRef>) -> Result<Planned, JobError> {
        let tokenize = TokenizeSpec { prefix: contract.prompts.passage.clone(), chunking: contract.chunking };
        let target = TableTarget {
            uri: self.job.table.clone(),
            text: self.job.text,
            commit: self.job.commit,
            contract,
            keep: self.source.keep_fields().to_vec(),
            heads,
            run_id: self.run_id.clone(),
            properties: HashMap::new(),
        };
        let mut keys = None;
        if let Some(table) = &self.table {
            table.check(&target)?;
            keys = Some(table.keys()?);
        }
        let info = backend.0.info();
        let embeddings = plan_embeddings(&self.source, keys, self.only, tokenize, info, &target.heads)?;
        let heads = target.heads.clone();
        let plan = plan_commit(embeddings, target)?;
        let context = task_context(backend)?;
        let version = self.table.as_ref().map(Table::version);
        Ok(Planned { plan, context, job: self.job, run_id: self.run_id, version, heads })
    }
}

/// One partition, bounded memory, and the backend where the operators look for it.
fn task_context(backend: &BackendHandle) -> Result<Arc<TaskContext>, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY))).build_arc()?;
    let config = SessionConfig::new().with_target_partitions(1).with_extension(Arc::new(backend.clone()));
    Ok(SessionContext::new_with_config_rt(config, runtime).task_ctx())
}

impl Planned {
    /// The columns that the embedding's pass fills, as they stand in the table. One that was another head's is empty
    /// from now on; a table that the run will make has them from the beginning.
    ///
    /// # Errors
    /// [`JobError::Sink`] when a column of that name holds something else.
    pub async fn declare(&self) -> Result<Vec<Declared>, JobError> {
        let columns: Vec<Field> = self.heads.iter().map(|column| column.as_ref().clone()).collect();
        Ok(match self.version {
            Some(_) if !columns.is_empty() => declare_columns(&self.job.table, &columns).await?,
            _ => vec![Declared::Added; columns.len()],
        })
    }

    /// Runs the plan to its end, brings the index up to date and does the upkeep. Dropping the future stops the run:
    /// what was committed stays, and another run continues from there.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn run(self, observer: &mut dyn Observer) -> Result<RunSummary, JobError> {
        let started = Instant::now();
        observer.stage(Stage::Embedding);
        let commits = self.commits(observer).await?;
        observer.stage(Stage::Indexing);
        let index = Box::pin(update_index(&self.job.table, &self.job.index)).await?;
        let wrote = commits.documents > 0 || commits.quarantined > 0;
        let kept =
            if wrote { Box::pin(upkeep(&self.job.table, &self.job.upkeep)).await } else { Ok(Upkept::default()) };
        let (upkeep, upkeep_failure) = match kept {
            Ok(kept) => (kept, None),
            Err(error) => (Upkept::default(), Some(error.to_string())),
        };
        let seconds = started.elapsed().as_secs_f64();
        let source = progress(self.plan.as_ref());
        let version = commits.version.or(self.version).max(Some(index.version)).max(upkeep.version).unwrap_or_default();
        Ok(RunSummary {
            run_id: self.run_id,
            table: self.job.table,
            version,
            rows_read: source.rows_read,
            rows_skipped: source.rows_skipped,
            rows_written: commits.documents,
            chunks_written: commits.chunks,
            rows_quarantined: commits.quarantined,
            tokens: commits.tokens,
            seconds,
            tokens_per_second: commits.tokens as f64 / seconds.max(1e-9),
            index,
            upkeep,
            upkeep_failure,
        })
    }

    async fn commits(&self, observer: &mut dyn Observer) -> Result<Commits, JobError> {
        let mut stream = self.plan.execute(0, Arc::clone(&self.context))?;
        let mut ticks = tokio::time::interval(TICK);
        let mut commits = Commits::default();
        loop {
            tokio::select! {
                batch = stream.next() => match batch {
                    Some(batch) => {
                        commits.add(&batch?)?;
                        observer.committed(commits.documents);
                    }
                    None => return Ok(commits),
                },
                _ = ticks.tick() => observer.progress(&progress(self.plan.as_ref())),
            }
        }
    }
}

impl fmt::Display for Planned {
    /// The plan as `EXPLAIN` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", displayable(self.plan.as_ref()).indent(false))
    }
}

/// The sum of a plan's commits.
#[derive(Debug, Default)]
struct Commits {
    version: Option<u64>,
    documents: u64,
    chunks: u64,
    quarantined: u64,
    tokens: u64,
}

impl Commits {
    fn add(&mut self, batch: &arrow::array::RecordBatch) -> Result<(), JobError> {
        let column = |name: &str| {
            let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<UInt64Type>());
            column.ok_or_else(|| DataFusionError::Internal(format!("a commit reports no {name}")))
        };
        let sum = |name| Ok::<u64, DataFusionError>(column(name)?.values().iter().sum());
        self.documents += sum("documents")?;
        self.chunks += sum("chunks")?;
        self.quarantined += sum("quarantined")?;
        self.tokens += sum("tokens")?;
        self.version = column("version")?.values().iter().copied().max().max(self.version);
        Ok(())
    }
}
