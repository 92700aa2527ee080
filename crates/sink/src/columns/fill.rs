//! Writes annotations into their column, a commit at a time.
//!
//! in:  `annotated_schema(column)`
//! out: one row a commit, see [`FillReport`]
//!
//! A commit holds the new values of some fragments: for each of them one data file with the whole column, earlier
//! values included, and nothing else. Rows with an `_error` go to the quarantine and stay without a value.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, mem,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array},
    compute::interleave,
    datatypes::{Field, Schema, UInt64Type},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use lance::{
    Dataset,
    dataset::{
        CommitBuilder,
        fragment::FileFragment,
        transaction::{DataReplacementGroup, Operation, TransactionBuilder},
    },
};
use lance_core::ROW_ADDR;
use polylance_schema::{
    CommitPolicy, annotated_schema,
    columns::{DOC_ID, ERROR, MESSAGE, ROW_ADDRESS, STAGE, TEXT},
};
use tokio::time::Instant;

use super::missing::has_column;
use crate::{
    commit::{
        properties,
        report::FillReport,
        retry::{Attempts, is_conflict},
    },
    error::SinkError,
    quarantine::write::Quarantine,
    table::{identity::advance, open, schema_check::check_head},
    write::{
        documents::{MAX_ERROR, MAX_TEXT, cut},
        window::{BadDocument, Document, Window},
    },
};

/// Rows of a column file that are put together at once.
const ROWS: usize = 8192;

/// A column to fill.
#[derive(Debug, Clone)]
pub struct FillTarget {
    /// The table.
    pub uri: String,
    /// The column, declared in the table, with its contract.
    pub column: Field,
    /// The run, written into every commit.
    pub run_id: String,
    /// When rows are committed.
    pub commit: CommitPolicy,
}

/// Fills a column.
#[derive(Debug)]
pub struct LanceFillExec {
    target: FillTarget,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LanceFillExec {
    /// Over `annotated_schema(column)`.
    ///
    /// # Errors
    /// When the input has other columns.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, target: FillTarget) -> Result<Self> {
        let (expected, found) = (annotated_schema(&target.column), input.schema());
        if expected.fields() != found.fields() {
            return Err(DataFusionError::Plan(format!("LanceFillExec expected columns {expected}, found {found}")));
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(FillReport::schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { target, input, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for LanceFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FillTarget { uri, column, commit, .. } = &self.target;
        let (column, rows, seconds) = (column.name(), commit.rows, commit.seconds);
        write!(f, "LanceFillExec: uri={uri}, column={column}, rows={rows}, seconds={seconds}")
    }
}

impl ExecutionPlan for LanceFillExec {
    fn name(&self) -> &'static str {
        "LanceFillExec"
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
            _ => Err(DataFusionError::Plan("LanceFillExec has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let filler = Filler {
            target: self.target.clone(),
            input: self.input.execute(partition, context)?.fuse(),
            conflicts: MetricBuilder::new(&self.metrics).counter("commit_conflicts", partition),
            open: None,
            pending: Pending::default(),
            failure: None,
        };
        let commits = stream::try_unfold(filler, |filler| Box::pin(filler.next()));
        Ok(Box::pin(RecordBatchStreamAdapter::new(FillReport::schema(), commits)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Rows that wait for a commit.
#[derive(Debug, Default)]
struct Pending {
    /// `annotated_schema(column)`.
    batches: Vec<RecordBatch>,
    rows: u64,
    opened: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    dataset: Dataset,
    quarantine: Quarantine,
}

struct Filler {
    target: FillTarget,
    input: stream::Fuse<SendableRecordBatchStream>,
    conflicts: Count,
    open: Option<Open>,
    pending: Pending,
    /// Of the input, told after the commit of what came before it.
    failure: Option<DataFusionError>,
}

impl Filler {
    /// Reads until a commit is due, commits, and reports it.
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        loop {
            let deadline = self.deadline();
            let next = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, self.input.next()).await,
                None => Ok(self.input.next().await),
            };
            match next {
                Ok(Some(Ok(batch))) => {
                    self.pending.opened.get_or_insert_with(Instant::now);
                    self.pending.rows += batch.num_rows() as u64;
                    self.pending.batches.push(batch);
                    let limit = self.target.commit.rows;
                    if limit == 0 || self.pending.rows < limit {
                        continue;
                    }
                }
                // What was annotated before the failure is kept and reported; the failure comes next.
                Ok(Some(Err(error))) if self.pending.rows == 0 => return Err(error),
                Ok(Some(Err(error))) => self.failure = Some(error),
                Ok(None) if self.pending.rows == 0 => return Ok(None),
                Ok(None) | Err(_) => {}
            }
            let report = self.commit().await?;
            return Ok(Some((report, self)));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let seconds = self.target.commit.seconds;
        (seconds > 0).then_some(self.pending.opened)??.checked_add(Duration::from_secs(seconds))
    }

    async fn commit(&mut self) -> Result<RecordBatch> {
        let pending = mem::take(&mut self.pending);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.target.open().await?,
        };
        let rows = Rows::new(&pending.batches, &self.target)?;
        let (version, written) = self.target.write(&mut open, &rows, &self.conflicts).await?;
        let properties = self.target.properties(written);
        open.quarantine.update(&rows.window, &properties).await?;
        self.open = Some(open);
        let quarantined = rows.window.quarantine.len() as u64;
        let moved = rows.good - written;
        Ok(FillReport { version, rows: written, quarantined, moved }.to_batch()?)
    }
}

impl FillTarget {
    async fn open(&self) -> Result<Open, SinkError> {
        let dataset = open::existing(&self.uri).await?;
        let quarantine = Quarantine::open(&self.uri, &self.run_id).await?;
        Ok(Open { dataset, quarantine })
    }

    /// Writes the fragments' column files and commits them, again after a conflict. The version, and the rows that got
    /// their value.
    async fn write(&self, open: &mut Open, rows: &Rows, conflicts: &Count) -> Result<(u64, u64), SinkError> {
        let uri = &self.uri;
        let mut attempts = Attempts::default();
        loop {
            advance(uri, &mut open.dataset).await?;
            check_head(uri, &open.dataset, &self.column)?;
            let mut replacements = Vec::with_capacity(rows.fragments.len());
            let mut written = 0;
            for (id, places) in &rows.fragments {
                // A fragment that compaction has replaced since: its rows are still null, and found where they are now.
                let Some(fragment) = open.dataset.get_fragment(*id as usize) else { continue };
                replacements.push(self.column_file(&open.dataset, &fragment, places, rows).await?);
                written += places.len() as u64;
            }
            if replacements.is_empty() {
                return Ok((open.dataset.version_id(), 0));
            }
            let operation = Operation::DataReplacement { replacements };
            let transaction = TransactionBuilder::new(open.dataset.version_id(), operation)
                .transaction_properties(Some(Arc::new(self.properties(written))))
                .build();
            match Box::pin(CommitBuilder::new(Arc::new(open.dataset.clone())).execute(transaction)).await {
                Ok(dataset) => {
                    open.dataset = dataset;
                    return Ok((open.dataset.version_id(), written));
                }
                Err(source) if is_conflict(&source) => {
                    conflicts.add(1);
                    attempts.conflict(uri, source).await?;
                }
                Err(source) => return Err(SinkError::storage(uri, "committing annotations")(source)),
            }
        }
    }

    fn properties(&self, rows: u64) -> HashMap<String, String> {
        HashMap::from([
            (properties::RUN_ID.to_owned(), self.run_id.clone()),
            (properties::COLUMN.to_owned(), self.column.name().clone()),
            (properties::ANNOTATED.to_owned(), rows.to_string()),
        ])
    }

    /// Writes the whole column of a fragment: the new values, and those that were there.
    async fn column_file(
        &self,
        dataset: &Dataset,
        fragment: &FileFragment,
        places: &[Place],
        rows: &Rows,
    ) -> Result<DataReplacementGroup, SinkError> {
        let (uri, name) = (&self.uri, self.column.name());
        let writing = || SinkError::storage(uri, "writing an annotation column");
        let count = Box::pin(fragment.physical_rows()).await.map_err(writing())?;
        let mut values = vec![new_null_array(self.column.data_type(), 1)];
        let mut source = vec![(0, 0); count];
        let mut put = |offset: u32, place: (usize, usize)| match source.get_mut(offset as usize) {
            Some(at) => {
                *at = place;
                Ok(())
            }
            None => Err(SinkError::rows(uri, format!("row {offset} of a fragment with {count} rows"))),
        };
        if has_column(dataset, fragment, name) {
            for (column, offsets) in self.present(dataset, fragment).await? {
                for (row, offset) in offsets.into_iter().enumerate() {
                    put(offset, (values.len(), row))?;
                }
                values.push(column);
            }
        }
        let first = values.len();
        values.extend(rows.values.iter().cloned());
        for place in places {
            put(place.offset, (first + place.batch, place.row))?;
        }
        let schema = dataset.schema().project(&[name]).map_err(writing())?;
        let arrow = Arc::new(Schema::new(vec![Field::new(name, self.column.data_type().clone(), true)]));
        let batches = source.chunks(ROWS).map(|part| {
            let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
            let column = interleave(&values, part)?;
            Ok(RecordBatch::try_new(Arc::clone(&arrow), vec![column])?)
        });
        let batches: Vec<lance::Result<RecordBatch>> = batches.collect();
        Box::pin(fragment.write_columns(stream::iter(batches), &schema)).await.map_err(writing())
    }

    /// The column of a fragment as it is, with the rows' offsets.
    async fn present(
        &self,
        dataset: &Dataset,
        fragment: &FileFragment,
    ) -> Result<Vec<(ArrayRef, Vec<u32>)>, SinkError> {
        let reading = || SinkError::storage(&self.uri, "reading an annotation column");
        let mut scanner = dataset.scan();
        scanner.with_fragments(vec![fragment.metadata().clone()]).with_row_address();
        scanner.project(&[self.column.name()]).map_err(reading())?;
        let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
        let mut present = Vec::new();
        while let Some(batch) = batches.try_next().await.map_err(reading())? {
            let (Some(values), Some(addresses)) =
                (batch.column_by_name(self.column.name()), batch.column_by_name(ROW_ADDR))
            else {
                return Err(SinkError::rows(&self.uri, "a scan without the column or row addresses"));
            };
            let offsets = addresses.as_primitive::<UInt64Type>().values().iter().map(|&address| address as u32);
            present.push((Arc::clone(values), offsets.collect()));
        }
        Ok(present)
    }
}

/// Where a new value is, and where it goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    batch: usize,
    row: usize,
    offset: u32,
}

/// The rows of a commit.
#[derive(Debug)]
struct Rows {
    /// The column, a batch at a time.
    values: Vec<ArrayRef>,
    /// The good rows of each fragment.
    fragments: BTreeMap<u64, Vec<Place>>,
    good: u64,
    /// What the quarantine must hear of.
    window: Window,
}

impl Rows {
    fn new(batches: &[RecordBatch], target: &FillTarget) -> Result<Self, SinkError> {
        let source = format!("{}#{}", target.uri, target.column.name());
        let mut rows = Self { values: Vec::new(), fragments: BTreeMap::new(), good: 0, window: Window::default() };
        for (number, batch) in batches.iter().enumerate() {
            let column = |name: &str| {
                let missing = || SinkError::rows(&target.uri, format!("a batch without {name:?}"));
                batch.column_by_name(name).ok_or_else(missing)
            };
            rows.values.push(Arc::clone(column(target.column.name())?));
            let addresses = column(ROW_ADDRESS)?.as_primitive::<UInt64Type>();
            let (ids, texts) = (column(DOC_ID)?.as_string::<i32>(), column(TEXT)?.as_string::<i32>());
            let errors = column(ERROR)?.as_struct();
            let (stages, messages) = (errors.column_by_name(STAGE), errors.column_by_name(MESSAGE));
            for row in 0..batch.num_rows() {
                let address = addresses.value(row);
                if errors.is_null(row) {
                    let place = Place { batch: number, row, offset: address as u32 };
                    rows.fragments.entry(address >> 32).or_default().push(place);
                    rows.good += 1;
                    // An earlier failure of this row is over. No document has an empty id, so nothing else is.
                    let document = Document { doc_id: String::new(), source: source.clone(), row: address };
                    rows.window.documents.push(document);
                    continue;
                }
                let of = |column: Option<&ArrayRef>| {
                    let column = column.and_then(|column| column.as_string_opt::<i32>());
                    column.map(|column| column.value(row).to_owned()).unwrap_or_default()
                };
                rows.window.quarantine.push(BadDocument {
                    source: source.clone(),
                    row: address,
                    doc_id: Some(ids.value(row).to_owned()),
                    stage: of(stages),
                    error: cut(&of(messages), MAX_ERROR).to_owned(),
                    text: Some(cut(texts.value(row), MAX_TEXT).to_owned()),
                });
            }
        }
        Ok(rows)
    }
}
