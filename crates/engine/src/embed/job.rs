//! The job: source, devices and table joined in one plan.
//!
//! Cheap checks come first: [`Job::open`] finds the source's files and the table, [`OpenJob::plan`] compares contracts,
//! and a lazy backend loads its model only when there is a row to embed.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
    time::Instant,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, FieldRef},
};
use chrono::{DateTime, Utc};
use datafusion::{
    error::DataFusionError,
    execution::{TaskContext, memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
    physical_plan::{ExecutionPlan, displayable},
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;
use polylance_backend::{BackendHandle, TokenizeSpec};
use polylance_dataflow::{Cancelled, RowSet, Source, SourceIds, SourceSpec, plan_embeddings, progress};
use polylance_schema::{CommitPolicy, Contract, MaintenancePolicy, OnMissing, Shard, TextColumn, WriteConcurrency};
use polylance_sink::{
    CommitReport, Declared, IndexSpec, Lease, MaintenanceReport, Table, TableTarget, declare_columns, plan_commit,
    properties, quarantine_version,
};
use uuid::Uuid;

use super::{
    cluster::ClusterJob,
    observer::{Observer, Stage},
    pipeline_hash::pipeline_hash,
    summary::{RunSummary, peak_memory},
    unchanged::{ExaminedRows, SourceListing, UnchangedFiles},
};
use crate::{EngineError, ShutdownSignal, SourceProgress, UsageError, aborted::TasksBefore};

/// Interval at which an [`Observer`] receives the progress of a running plan.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A source, a table, and how one becomes the other.
#[derive(Debug, Clone)]
pub struct Job {
    /// The documents.
    pub source: SourceSpec,
    /// The table's address.
    pub table: String,
    /// Whether the table stores the text of chunks.
    pub text: TextColumn,
    /// When rows are committed.
    pub commit: CommitPolicy,
    /// The table's vector index.
    pub index: IndexSpec,
    /// The maintenance of the table at the end of a run that wrote something.
    pub upkeep: MaintenancePolicy,
    /// What happens to documents of the table that are no longer in the source.
    pub on_missing: OnMissing,
    /// What happens when another run is writing to the table.
    pub concurrency: WriteConcurrency,
    /// Whether unchanged files are read too.
    pub reread: bool,
    /// The part of the source to embed; `None` for the whole one. A run over the whole source completes what runs over
    /// shards leave to it: deletion, indices and maintenance.
    pub shard: Option<Shard>,
    /// The cluster that embeds the source; `None` for the devices of this machine.
    pub cluster: Option<ClusterJob>,
    /// The limits of quarantined rows.
    pub limits: Limits,
    /// Memory budget, in bytes, for the ids of the table's documents.
    pub memory: usize,
}

/// How many rows may go to the quarantine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Maximum number in one run; `None` for no limit.
    pub rows: Option<u64>,
    /// Maximum share of the rows read, checked from [`Limits::MIN_ROWS_FOR_SHARE`] rows on.
    pub share: f64,
}

impl Limits {
    /// No limit.
    pub const NONE: Self = Self { rows: None, share: 1.0 };
    /// Number of rows from which the share is checked.
    pub const MIN_ROWS_FOR_SHARE: u64 = 1000;

    /// The limit that is exceeded, if any.
    fn exceeded(&self, quarantined: u64, read: u64) -> Option<String> {
        if let Some(rows) = self.rows.filter(|rows| quarantined > *rows) {
            return Some(format!("`quarantine.max_rows` allows {rows}"));
        }
        let too_many = read >= Self::MIN_ROWS_FOR_SHARE && quarantined as f64 > self.share * read as f64;
        too_many.then(|| format!("`quarantine.max_share` allows {} %", self.share * 100.0))
    }
}

/// A job whose source and table were found.
#[derive(Debug)]
pub struct OpenJob {
    job: Job,
    source: Source,
    table: Option<Table>,
    only: Option<Arc<RowSet>>,
    run_id: String,
    /// The time at which the source's files were listed.
    listed: DateTime<Utc>,
    /// The quarantine's version at that time.
    quarantine: Option<u64>,
}

/// A job as a plan.
#[derive(Debug)]
pub struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    backend: BackendHandle,
    job: Job,
    run_id: String,
    table: Option<Table>,
    heads: Vec<FieldRef>,
    shutdown: ShutdownSignal,
    /// Collects the source's ids, if missing documents are deleted after the run.
    ids: Option<Arc<SourceIds>>,
    /// The files to record in the table's manifest; absent if only some rows are embedded.
    listing: Option<SourceListing>,
    unchanged: UnchangedFiles,
    examined: ExaminedRows,
    /// Remarks about the source's files.
    notes: Vec<String>,
}

/// Opens, plans and runs a job.
///
/// # Errors
/// See [`EngineError`].
pub async fn run_job(
    job: Job,
    backend: BackendHandle,
    contract: Contract,
    observer: &mut dyn Observer,
) -> Result<RunSummary, EngineError> {
    // The futures of the steps are large: boxes keep the caller's future small.
    let open = Box::pin(job.open()).await?;
    let planned = Box::pin(open.plan(&backend, contract, Vec::new())).await?;
    Box::pin(planned.run(observer)).await
}

impl Job {
    /// Finds the source's files and the table.
    ///
    /// # Errors
    /// [`EngineError::Usage`] if the job has a setting that contradicts its shard; [`EngineError::Source`] or
    /// [`EngineError::Sink`].
    pub async fn open(self) -> Result<OpenJob, EngineError> {
        self.check_shard()?;
        self.check_cluster()?;
        let listed = Utc::now();
        let table = Table::open(&self.table).await;
        let kept = match &table {
            Ok(Some(table)) => table.kept_columns(),
            _ => Vec::new(),
        };
        let known = table.as_ref().ok().and_then(Option::as_ref);
        let types = known.and_then(|table| table.recorded_input_types(&Source::input_types_key(&self.source)));
        let source = Box::pin(Source::open_with_types(self.source.clone(), &kept, types)).await?;
        let table = table?;
        let quarantine = quarantine_version(&self.table).await?;
        Ok(OpenJob { job: self, source, table, only: None, run_id: Uuid::now_v7().to_string(), listed, quarantine })
    }
}

impl OpenJob {
    /// Restricts the job to these rows of the source.
    #[must_use]
    pub fn only(self, rows: RowSet) -> Self {
        Self { only: Some(Arc::new(rows)), ..self }
    }

    /// Lets a cluster embed the source.
    ///
    /// # Errors
    /// [`UsageError`] if the job is a shard.
    pub fn on_cluster(self, cluster: ClusterJob) -> Result<Self, UsageError> {
        let job = Job { cluster: Some(cluster), ..self.job };
        job.check_cluster()?;
        Ok(Self { job, ..self })
    }

    /// Checks that the table has this contract and these columns, and plans the run. `heads` are the columns, with
    /// their contracts, that the backend's heads fill.
    ///
    /// # Errors
    /// [`EngineError::Sink`] if the table has a different contract or different columns, [`EngineError::Plan`] if the
    /// parts do not fit together.
    pub async fn plan(
        mut self,
        backend: &BackendHandle,
        contract: Contract,
        heads: Vec<FieldRef>,
    ) -> Result<Planned, EngineError> {
        let tokenize = TokenizeSpec { prefix: contract.prompts.passage.clone(), chunking: contract.chunking };
        let mut target = TableTarget {
            uri: self.job.table.clone(),
            text: self.job.text,
            commit: self.job.commit,
            contract,
            keep: self.source.keep_fields().to_vec(),
            heads,
            run_id: self.run_id.clone(),
            mark: self.table.as_ref().map(Table::mark).transpose()?.unwrap_or_default(),
            properties: HashMap::new(),
        };
        let pipeline = pipeline_hash(&self.job.source, self.job.on_missing, &target);
        target.properties.insert(properties::PIPELINE.to_owned(), pipeline.clone());
        let mut keys = None;
        if let Some(table) = &self.table {
            table.check(&target)?;
            keys = Some(table.keys()?);
        }
        let info = backend.0.info();
        // A run over some rows completes no file.
        let partial = self.only.is_some();
        let mut listing = (!partial).then(|| SourceListing::new(&self.source, &self.job.source, self.listed, pipeline));
        let mut unchanged = UnchangedFiles::default();
        if let (Some(table), Some(listing), false) = (&self.table, &listing, self.job.reread) {
            unchanged = Box::pin(listing.unchanged_files(table)).await?;
            unchanged.files = match unchanged.source_rows {
                Some(_) => self.source.files(),
                None => self.source.mark_unchanged(self.listed, &unchanged.hashes),
            };
        }
        let examined = ExaminedRows {
            quarantine: self.quarantine,
            coverage: self.source.coverage(),
            only: self.only.as_ref().map(Arc::clone),
        };
        if let Some(shard) = self.job.shard {
            self.source = Box::pin(self.source.into_shard(shard)).await?;
            listing = listing.map(|listing| listing.of_shard(&self.source));
            if unchanged.source_rows.is_none() {
                unchanged.files = self.source.unchanged_files();
            }
        }
        let heads = target.heads.clone();
        // A few rows are embedded here.
        let plan = if let Some(cluster) = self.job.cluster.clone().filter(|_| !partial) {
            let version = self.table.as_ref().map(Table::version);
            cluster.plan(self.source.clone(), target, version, self.job.memory)?
        } else {
            let rule = target.mark.rule;
            let embeddings = plan_embeddings(&self.source, keys, self.only, tokenize, info, &target.heads, rule)?;
            plan_commit(embeddings, target)?
        };
        let shutdown = ShutdownSignal::default();
        // A run over some rows, or over a shard, does not see all ids.
        let sees_all = !partial && self.job.shard.is_none();
        let ids = (self.job.on_missing == OnMissing::Delete && sees_all).then(Arc::default);
        let context = task_context(backend, self.job.memory, &shutdown, ids.as_ref())?;
        let backend = backend.clone();
        let OpenJob { job, table, run_id, source, .. } = self;
        let notes = source.notes().to_vec();
        Ok(Planned {
            plan,
            context,
            backend,
            job,
            run_id,
            table,
            heads,
            shutdown,
            ids,
            listing,
            unchanged,
            examined,
            notes,
        })
    }
}

/// One partition, bounded memory, and the session extensions of the operators.
fn task_context(
    backend: &BackendHandle,
    memory: usize,
    shutdown: &ShutdownSignal,
    ids: Option<&Arc<SourceIds>>,
) -> Result<Arc<TaskContext>, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(memory))).build_arc()?;
    let mut config = SessionConfig::new().with_target_partitions(1).with_extension(Arc::new(backend.clone()));
    config.set_extension(Arc::new(shutdown.clone()));
    if let Some(ids) = ids {
        config.set_extension(Arc::clone(ids));
    }
    Ok(SessionContext::new_with_config_rt(config, runtime).task_ctx())
}

impl Planned {
    /// Declares the columns that the embedding's pass fills. A column of a different head is emptied; a table that the
    /// run creates has the columns from the beginning.
    ///
    /// # Errors
    /// [`EngineError::Sink`] if a column of that name is not an annotation.
    pub async fn declare(&self) -> Result<Vec<Declared>, EngineError> {
        let columns: Vec<Field> = self.heads.iter().map(|column| column.as_ref().clone()).collect();
        Ok(match self.table {
            Some(_) if !columns.is_empty() => declare_columns(&self.job.table, &columns).await?,
            _ => vec![Declared::Added; columns.len()],
        })
    }

    /// The plan, whose metrics grow while it runs.
    pub fn plan(&self) -> Arc<dyn ExecutionPlan> {
        Arc::clone(&self.plan)
    }

    /// The signal that stops the run before the source's end.
    pub fn shutdown(&self) -> ShutdownSignal {
        self.shutdown.clone()
    }

    /// Runs the plan to its end, deletes missing documents, updates the indices and maintains the table. Dropping the
    /// future ends the run at once: committed rows stay, and another run continues from there.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn run(self, observer: &mut dyn Observer) -> Result<RunSummary, EngineError> {
        if self.job.concurrency == WriteConcurrency::Merge {
            return self.run_unlocked(observer).await;
        }
        let lease = Box::pin(Lease::acquire(&self.job.table, &self.run_id)).await?;
        let summary = tokio::select! {
            summary = self.run_unlocked(observer) => summary,
            lost = lease.lost() => Err(lost.into()),
        };
        lease.release().await;
        summary
    }

    async fn run_unlocked(self, observer: &mut dyn Observer) -> Result<RunSummary, EngineError> {
        let started = Instant::now();
        observer.stage(Stage::Embedding);
        let source_unchanged = self.unchanged.source_rows.is_some();
        let (commits, source) = if let Some(rows) = self.unchanged.source_rows {
            let bytes_total = progress(self.plan.as_ref()).bytes_total;
            let source =
                SourceProgress { rows_read: rows, rows_skipped: rows, bytes_total, ..SourceProgress::default() };
            (Commits::default(), source)
        } else {
            let before = TasksBefore::count();
            let commits = match self.execute(observer).await {
                Ok(commits) => commits,
                Err(error) => {
                    before.wait_for_aborted().await;
                    return Err(error);
                }
            };
            let source = progress(self.plan.as_ref());
            self.check_limits(&commits, &source)?;
            (commits, source)
        };
        let since = self.table.as_ref().map(Table::version);
        let mut summary = RunSummary {
            run_id: self.run_id,
            table: self.job.table,
            version: commits.versions.last().copied().or(since).unwrap_or_default(),
            rows_read: source.rows_read,
            rows_skipped: source.rows_skipped,
            rows_written: commits.documents,
            chunks_written: commits.chunks,
            rows_quarantined: commits.quarantined,
            records_dropped: 0,
            documents_removed: 0,
            removal_skipped: None,
            shard: self.job.shard,
            stopped: commits.stopped,
            source_unchanged,
            files_unchanged: self.unchanged.files as u64,
            source_notes: self.notes,
            bytes_read: source.bytes_read,
            bytes_total: source.bytes_total,
            tokens: commits.tokens,
            seconds: 0.0,
            tokens_per_second: 0.0,
            peak_memory: None,
            peak_queue: commits.peak_queue,
            index: None,
            upkeep: MaintenanceReport::default(),
            upkeep_failure: None,
        };
        if !summary.stopped && summary.shard.is_some() {
            // A run over the whole source deletes, indexes and maintains.
            if let Some(listing) = self.listing.filter(|_| !source_unchanged) {
                Box::pin(summary.record_manifest(listing, since, commits.versions)).await?;
            }
        } else if !summary.stopped {
            observer.stage(Stage::Indexing);
            if let Some(ids) = self.ids.filter(|_| !source_unchanged) {
                // The command before the pipe may have failed, or selected nothing: neither means that all documents
                // are gone.
                if self.job.source.is_stdin() && summary.rows_read == 0 {
                    summary.removal_skipped = Some("standard input has no rows".to_owned());
                } else {
                    Box::pin(summary.delete_missing(&ids)).await?;
                }
            }
            if !source_unchanged {
                Box::pin(summary.drop_outdated(&self.examined)).await?;
            }
            if let Some(listing) = self.listing.filter(|_| !source_unchanged) {
                Box::pin(summary.record_manifest(listing, since, commits.versions)).await?;
            }
            Box::pin(summary.update_indices(&self.job.index)).await?;
            Box::pin(summary.maintain(&self.job.upkeep)).await;
        }
        summary.seconds = started.elapsed().as_secs_f64();
        summary.tokens_per_second = summary.tokens as f64 / summary.seconds.max(1e-9);
        summary.peak_memory = peak_memory();
        Ok(summary)
    }

    /// Fails the run if too many rows went to the quarantine.
    fn check_limits(&self, commits: &Commits, source: &SourceProgress) -> Result<(), EngineError> {
        let (quarantined, read) = (commits.quarantined, source.rows_read);
        match self.job.limits.exceeded(quarantined, read) {
            Some(limit) => Err(EngineError::Quarantine { table: self.job.table.clone(), quarantined, read, limit }),
            None => Ok(()),
        }
    }

    /// Executes the plan and adds up its commits.
    async fn execute(&self, observer: &mut dyn Observer) -> Result<Commits, EngineError> {
        let mut stream = self.plan.execute(0, Arc::clone(&self.context))?;
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        let mut commits = Commits::default();
        loop {
            tokio::select! {
                batch = stream.next() => match batch {
                    Some(Ok(batch)) => {
                        commits.add(&batch)?;
                        observer.committed(commits.documents);
                    }
                    Some(Err(error)) if Cancelled::is_cause_of(&error) => commits.stopped = true,
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(commits),
                },
                _ = ticks.tick() => {
                    let source = progress(self.plan.as_ref());
                    let load = self.backend.0.load();
                    commits.peak_queue = commits.peak_queue.max(load.tokens() as u64);
                    observer.load(&load);
                    observer.progress(&source);
                    let quarantined = polylance_sink::quarantined_so_far(self.plan.as_ref());
                    if self.job.limits.exceeded(quarantined, source.rows_read).is_some() {
                        self.shutdown.request();
                    }
                }
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
    versions: BTreeSet<u64>,
    documents: u64,
    chunks: u64,
    quarantined: u64,
    tokens: u64,
    stopped: bool,
    peak_queue: u64,
}

impl Commits {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), EngineError> {
        for report in CommitReport::from_batch(batch)? {
            self.documents += report.documents;
            self.chunks += report.chunks;
            self.quarantined += report.quarantined;
            self.tokens += report.tokens;
            self.versions.extend(report.version);
        }
        Ok(())
    }
}
