//! Makes each window one version of the table.
//!
//! in:  one row a window, see [`crate::write::window`]
//! out: `version, documents, chunks, quarantined, tokens`, one row a window; a window that has nothing but refused rows
//!      makes no version of the table, and its `version` is null
//!
//! A commit adds the window's data files and takes away older rows of the same documents in one Lance
//! transaction on the latest version, after checking that this version still has the run's contract and
//! columns. When another writer is faster, it starts over from what that writer left. Then the quarantine
//! is brought up to date. A run without rows makes no version, but an address without a table gets
//! an empty one that can be searched and shown.

use std::{collections::HashMap, collections::HashSet, fmt, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Schema, SchemaRef},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning,
        PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, Time},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use lance::Dataset;
use lance_table::format::Fragment;
use polylance_schema::columns::{DOC_ID, RUN_ID};

use super::{
    known_rows::{KnownRows, RowAddresses},
    properties,
    report::CommitReport,
    retry::{Attempts, is_conflict},
    transaction::{Others, change, check_files, create, file_names},
};
use crate::{
    error::SinkError,
    quarantine::write::Quarantine,
    table::{identity::advance, open, schema_check, target::TableTarget},
    write::{
        field_ids::fit_field_ids,
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
    /// When the input does not yield windows, or has more than one partition.
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
        let properties = PlanProperties::new(
            EquivalenceProperties::new(CommitReport::schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { target, input, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }

    /// Where the rows go.
    pub fn target(&self) -> &TableTarget {
        &self.target
    }
}

impl DisplayAs for LanceCommitExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LanceCommitExec: uri={}, run_id={}", self.target.uri, self.target.run_id)
    }
}

impl ExecutionPlan for LanceCommitExec {
    fn name(&self) -> &'static str {
        "LanceCommitExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::try_new(input, self.target.clone())?)),
            _ => Err(DataFusionError::Plan("LanceCommitExec has one input".to_owned())),
        }
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

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[derive(Debug)]
struct CommitMetrics {
    commits: Count,
    conflicts: Count,
    replaced: Count,
    commit_time: Time,
}

impl CommitMetrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            commits: counter("commits"),
            conflicts: counter("commit_conflicts"),
            replaced: counter("rows_replaced"),
            commit_time: MetricBuilder::new(metrics).subset_time("commit_time", partition),
        }
    }
}

/// Handles and knowledge that last a run.
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
                for window in Window::from_batch(&batch?)? {
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
            Some(dataset) => schema_check::check(dataset, &self.target)?,
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
        state.quarantine.update(&window, &properties).await?;
        timer.done();
        let (documents, quarantined) = (window.documents.len() as u64, window.quarantine.len() as u64);
        Ok(CommitReport { version, documents, chunks: window.chunks, quarantined, tokens: window.tokens })
    }

    /// Commits the window's files to the latest version, and again until no other writer is in the way. The version
    /// that this makes; `None` when there was nothing to commit.
    async fn commit_rows(
        &self,
        state: &mut State,
        window: &Window,
        properties: &HashMap<String, String>,
    ) -> Result<Option<u64>, SinkError> {
        let uri = &self.target.uri;
        let mut attempts = Attempts::default();
        loop {
            self.refresh(state).await?;
            check_files(uri, &window.fragments).await?;
            let committed = match &state.dataset {
                // The latest version is another writer's, and says nothing of this run.
                Some(_) if window.fragments.is_empty() => return Ok(None),
                Some(dataset) => {
                    schema_check::check(dataset, &self.target)?;
                    for column in &self.target.heads {
                        schema_check::check_head(uri, dataset, column)?;
                    }
                    let mut fragments = window.fragments.clone();
                    fit_field_ids(uri, dataset, &mut fragments, &window.fields)?;
                    let replaced = self.replaced(&mut state.known, dataset, window).await?;
                    self.change(dataset, fragments, &replaced, properties.clone()).await
                }
                None => create(uri, &self.new_table(), window.fragments.clone(), properties.clone()).await,
            };
            match committed {
                Ok(dataset) => {
                    self.metrics.commits.add(1);
                    state.known.own(&dataset, &file_names(&window.fragments));
                    let version = dataset.version_id();
                    state.dataset = Some(dataset);
                    return Ok(Some(version));
                }
                Err(source) if is_conflict(&source) => {
                    self.metrics.conflicts.add(1);
                    attempts.conflict(uri, source).await?;
                }
                Err(source) => return Err(SinkError::storage(uri, "committing")(source)),
            }
        }
    }

    async fn change(
        &self,
        dataset: &Dataset,
        fragments: Vec<Fragment>,
        replaced: &RowAddresses,
        mut properties: HashMap<String, String>,
    ) -> lance::Result<Dataset> {
        let rows = replaced.values().map(Vec::len).sum::<usize>();
        properties.insert(properties::REPLACED.to_owned(), rows.to_string());
        let committed = Box::pin(change(dataset, fragments, replaced, Others::Heed, properties)).await?;
        self.metrics.replaced.add(rows);
        Ok(committed)
    }

    /// Moves to the latest version.
    async fn refresh(&self, state: &mut State) -> Result<(), SinkError> {
        let uri = &self.target.uri;
        if let Some(dataset) = &mut state.dataset {
            return advance(uri, dataset).await;
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

    /// Where older rows of the window's documents are.
    async fn replaced(
        &self,
        known: &mut KnownRows,
        dataset: &Dataset,
        window: &Window,
    ) -> Result<RowAddresses, SinkError> {
        let ids = self.contested(known, dataset, window).await?;
        if ids.is_empty() {
            return Ok(RowAddresses::new());
        }
        // Rows of this run that a compaction has moved into another fragment are not older ones.
        let own = |batch: &RecordBatch, row: usize| batch.column(1).as_string::<i32>().value(row) == self.target.run_id;
        let replaced = |batch: &RecordBatch, row: usize| {
            ids.contains(batch.column(0).as_string::<i32>().value(row)) && !own(batch, row)
        };
        known.locate(&self.target.uri, dataset, &[DOC_ID, RUN_ID], replaced).await
    }

    /// The window's documents that others may have written too.
    async fn contested<'a>(
        &self,
        known: &mut KnownRows,
        dataset: &Dataset,
        window: &'a Window,
    ) -> Result<HashSet<&'a str>, SinkError> {
        known
            .learn(&self.target.uri, dataset, &[DOC_ID], |batch, keys| {
                let mut ids = batch.column(0).as_string::<i32>().iter().flatten();
                ids.try_for_each(|id| keys.insert(id).map(drop))
            })
            .await?;
        let mut contested = HashSet::new();
        for document in &window.documents {
            if known.may_hold(&document.doc_id)? {
                contested.insert(document.doc_id.as_str());
            }
        }
        Ok(contested)
    }

    /// What the transaction says about itself.
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
