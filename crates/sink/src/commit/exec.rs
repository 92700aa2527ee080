//! Makes each window one version of the table.
//!
//! in:  one row per window, see [`crate::write::window`]
//! out: `version, documents, chunks, quarantined, tokens`, one row per window; `version` is null for a window of which
//!      all rows failed, because it makes no version of the table
//!
//! A commit adds the window's data files and deletes older rows of the same documents, in one Lance transaction on the
//! latest version, after a check that this version still has the run's contract and columns. When another writer
//! commits first, the commit is retried on the version that it left. Then the quarantine is updated. A run without rows
//! makes no version, but at an address without a table it creates an empty one that can be searched and shown.

use std::{collections::HashMap, collections::HashSet, fmt, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Schema, SchemaRef},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use lance::Dataset;
use lance_table::format::Fragment;
use polylance_dataflow::{
    operator::{fmt_operator, properties},
    single_child_plan,
};
use polylance_schema::columns::{DOC_ID, RUN_ID};

use super::{
    known_rows::{KnownRows, RowAddresses},
    properties,
    report::CommitReport,
    retry::{CommitRetry, is_conflict},
    transaction::{ConcurrentWrites, check_files, commit_first_version, commit_update, file_names},
};
use crate::{
    error::SinkError,
    operator::OperatorTimes,
    quarantine::write::Quarantine,
    table::{identity::advance_to_latest, open, schema_check, target::TableTarget},
    write::{
        field_ids::remap_field_ids,
        window::{Window, window_schema},
    },
};

/// Commits windows.
#[derive(Debug)]
pub struct LanceCommitExec {
    target: TableTarget,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LanceCommitExec {
    /// Commits the windows of `input`, which writes for the same `target`.
    ///
    /// # Errors
    /// When the input does not yield windows, or when it has more than one partition.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, target: TableTarget) -> Result<Self> {
        let partitions = input.output_partitioning().partition_count();
        if partitions != 1 {
            return Err(DataFusionError::Plan(format!(
                "LanceCommitExec needs one input partition, found {partitions}"
            )));
        }
        if input.schema().fields() != window_schema().fields() {
            let message = format!("LanceCommitExec expected columns {}, found {}", window_schema(), input.schema());
            return Err(DataFusionError::Plan(message));
        }
        let properties = properties(CommitReport::schema());
        Ok(Self { target, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The table that the rows are for.
    pub fn target(&self) -> &TableTarget {
        &self.target
    }
}

impl DisplayAs for LanceCommitExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableTarget { uri, run_id, .. } = &self.target;
        fmt_operator(format, f, "LanceCommitExec", &[("uri", uri), ("run_id", run_id)])
    }
}

impl ExecutionPlan for LanceCommitExec {
    single_child_plan!(LanceCommitExec, |this, input| Self::try_new(input, this.target.clone())?);

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let committer = Committer {
            schema: self.target.schema(),
            target: self.target.clone(),
            metrics: CommitMetrics::new(&self.metrics, partition),
            state: None,
        };
        let commits = stream::try_unfold((committer, input), |(committer, input)| Box::pin(committer.next(input)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(CommitReport::schema(), commits)))
    }
}

#[derive(Debug)]
struct CommitMetrics {
    commits: Count,
    conflicts: Count,
    replaced: Count,
    commit_time: Time,
    times: OperatorTimes,
}

impl CommitMetrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            commits: counter("commits"),
            conflicts: counter("commit_conflicts"),
            replaced: counter("rows_replaced"),
            commit_time: MetricBuilder::new(metrics).subset_time("commit_time", partition),
            times: OperatorTimes::new(metrics, partition),
        }
    }
}

/// Datasets and known keys that last for a run.
#[derive(Debug)]
struct State {
    dataset: Option<Dataset>,
    known: KnownRows,
    quarantine: Quarantine,
}

struct Committer {
    schema: SchemaRef,
    target: TableTarget,
    metrics: CommitMetrics,
    state: Option<State>,
}

impl Committer {
    /// One step of the stream: the windows of one batch, or the end of the run.
    async fn next(
        mut self,
        mut input: SendableRecordBatchStream,
    ) -> Result<Option<(RecordBatch, (Self, SendableRecordBatchStream))>> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.begin().await?,
        };
        let mut rows = Vec::new();
        match input.next().await {
            Some(batch) => {
                let batch = batch?;
                let timer = self.metrics.times.elapsed_compute.timer();
                let windows = Window::from_batch(&batch)?;
                timer.done();
                for window in windows {
                    rows.push(self.commit(&mut state, window).await?);
                }
            }
            None if state.dataset.is_none() => rows.push(self.commit(&mut state, Window::default()).await?),
            None => return Ok(None),
        }
        self.state = Some(state);
        Ok(Some((CommitReport::to_batch(&rows)?, (self, input))))
    }

    async fn begin(&self) -> Result<State, SinkError> {
        let dataset = open::latest(&self.target.uri).await?;
        match &dataset {
            Some(dataset) => schema_check::check_target(dataset, &self.target)?,
            None if self.target.mark.id.is_some() => {
                let (uri, what) = (self.target.uri.clone(), "it was removed".to_owned());
                return Err(SinkError::Replaced { uri, what });
            }
            None => {}
        }
        let quarantine = Quarantine::open(&self.target.uri, &self.target.run_id).await?;
        Ok(State { dataset, known: KnownRows::default(), quarantine })
    }

    async fn commit(&self, state: &mut State, window: Window) -> Result<CommitReport, SinkError> {
        let timer = self.metrics.commit_time.timer();
        let properties = self.properties(&window);
        let version = self.commit_rows(state, &window, &properties).await?;
        let waiting = self.metrics.times.wait_store.timer();
        state.quarantine.update(&window, &properties).await?;
        waiting.done();
        timer.done();
        let (documents, quarantined) = (window.documents.len() as u64, window.quarantine.len() as u64);
        Ok(CommitReport { version, documents, chunks: window.chunks, quarantined, tokens: window.tokens })
    }

    /// Commits the window's files to the latest version, and retries while other writers commit first. Returns the new
    /// version; `None` when there was nothing to commit.
    async fn commit_rows(
        &self,
        state: &mut State,
        window: &Window,
        properties: &HashMap<String, String>,
    ) -> Result<Option<u64>, SinkError> {
        let uri = &self.target.uri;
        let mut retry = CommitRetry::default();
        loop {
            let waiting = self.metrics.times.wait_store.timer();
            self.refresh(state).await?;
            check_files(uri, &window.fragments).await?;
            waiting.done();
            let committed = match &state.dataset {
                // The latest version may be another writer's: it is not reported as this run's.
                Some(_) if window.fragments.is_empty() => return Ok(None),
                Some(dataset) => {
                    let timer = self.metrics.times.elapsed_compute.timer();
                    schema_check::check_target(dataset, &self.target)?;
                    for column in &self.target.heads {
                        schema_check::check_head(uri, dataset, column)?;
                    }
                    let mut fragments = window.fragments.clone();
                    remap_field_ids(uri, dataset, &mut fragments, &window.fields)?;
                    timer.done();
                    let _waiting = self.metrics.times.wait_store.timer();
                    let replaced = self.replaced_rows(&mut state.known, dataset, window).await?;
                    self.commit_to(dataset, fragments, &replaced, properties.clone()).await
                }
                None => {
                    let _waiting = self.metrics.times.wait_store.timer();
                    commit_first_version(uri, &self.new_table(), window.fragments.clone(), properties.clone()).await
                }
            };
            match committed {
                Ok(dataset) => {
                    self.metrics.commits.add(1);
                    state.known.mark_own(&dataset, &file_names(&window.fragments));
                    let version = dataset.version_id();
                    state.dataset = Some(dataset);
                    return Ok(Some(version));
                }
                Err(source) if is_conflict(&source) => {
                    self.metrics.conflicts.add(1);
                    retry.wait_after_conflict(uri, source).await?;
                }
                Err(source) => return Err(SinkError::storage(uri, "committing")(source)),
            }
        }
    }

    /// Commits a version of `dataset` with the fragments added and the replaced rows deleted.
    async fn commit_to(
        &self,
        dataset: &Dataset,
        fragments: Vec<Fragment>,
        replaced: &RowAddresses,
        mut properties: HashMap<String, String>,
    ) -> lance::Result<Dataset> {
        let rows = replaced.values().map(Vec::len).sum::<usize>();
        properties.insert(properties::REPLACED.to_owned(), rows.to_string());
        let committed =
            Box::pin(commit_update(dataset, fragments, replaced, ConcurrentWrites::Reject, properties)).await?;
        self.metrics.replaced.add(rows);
        Ok(committed)
    }

    /// Moves to the latest version.
    async fn refresh(&self, state: &mut State) -> Result<(), SinkError> {
        let uri = &self.target.uri;
        if let Some(dataset) = &mut state.dataset {
            return advance_to_latest(uri, dataset).await;
        }
        state.dataset = open::latest(uri).await?;
        Ok(())
    }

    /// The schema of a table that this run makes.
    fn new_table(&self) -> Schema {
        let mut schema = self.schema.as_ref().clone();
        schema.metadata.extend(self.target.mark.new_table());
        schema
    }

    /// Addresses of the older rows of the window's documents.
    async fn replaced_rows(
        &self,
        known: &mut KnownRows,
        dataset: &Dataset,
        window: &Window,
    ) -> Result<RowAddresses, SinkError> {
        let ids = self.possibly_written_before(known, dataset, window).await?;
        if ids.is_empty() {
            return Ok(RowAddresses::new());
        }
        // Rows of this run that a compaction moved to another fragment are not older ones.
        let own = |batch: &RecordBatch, row: usize| batch.column(1).as_string::<i32>().value(row) == self.target.run_id;
        let replaced = |batch: &RecordBatch, row: usize| {
            ids.contains(batch.column(0).as_string::<i32>().value(row)) && !own(batch, row)
        };
        known.find_rows(&self.target.uri, dataset, &[DOC_ID, RUN_ID], replaced).await
    }

    /// The window's documents that the table may have from an earlier run or another writer.
    async fn possibly_written_before<'a>(
        &self,
        known: &mut KnownRows,
        dataset: &Dataset,
        window: &'a Window,
    ) -> Result<HashSet<&'a str>, SinkError> {
        known
            .read_new_fragments(&self.target.uri, dataset, &[DOC_ID], |batch, keys| {
                let mut ids = batch.column(0).as_string::<i32>().iter().flatten();
                ids.try_for_each(|id| keys.insert(id).map(drop))
            })
            .await?;
        let mut found = HashSet::new();
        for document in &window.documents {
            if known.may_contain(&document.doc_id)? {
                found.insert(document.doc_id.as_str());
            }
        }
        Ok(found)
    }

    /// The properties of the transaction.
    fn properties(&self, window: &Window) -> HashMap<String, String> {
        let mut all = self.target.properties.clone();
        let mut put = |key: &str, value: String| all.insert(key.to_owned(), value);
        put(properties::RUN_ID, self.target.run_id.clone());
        put(properties::DOCUMENTS, window.documents.len().to_string());
        put(properties::CHUNKS, window.chunks.to_string());
        if let (Some(first), Some(last)) = (window.documents.first(), window.documents.last()) {
            put(properties::SOURCE_FIRST, format!("{}#{}", first.source, first.row));
            put(properties::SOURCE_LAST, format!("{}#{}", last.source, last.row));
        }
        all
    }
}
