//! Writes annotations to their column, commit by commit.
//!
//! in:  `annotated_schema(column)`
//! out: one row per commit, see [`FillReport`]
//!
//! A commit has the new values of some fragments: for each of them one data file with the whole column, earlier values
//! included, and nothing else. Rows with an `_error` go to the quarantine and get no value.

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
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties,
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder},
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
use polylance_dataflow::{
    operator::{fmt_operator, properties},
    single_child_plan,
};
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
        retry::{CommitRetry, is_conflict},
    },
    error::SinkError,
    operator::OperatorTimes,
    quarantine::write::Quarantine,
    table::{identity::advance_to_latest, open, schema_check::check_head},
    write::{
        documents::{MAX_QUARANTINED_ERROR_BYTES, MAX_QUARANTINED_TEXT_BYTES, cut},
        next_batch::{NextBatch, next_batch},
        window::{Document, FailedDocument, Window},
    },
};

/// Rows per batch of a column file.
const COLUMN_FILE_BATCH_ROWS: usize = 8192;

/// A column to fill.
#[derive(Debug, Clone)]
pub struct FillTarget {
    /// The table.
    pub uri: String,
    /// The column, declared in the table, with its contract.
    pub column: Field,
    /// The id of the run, written to every commit.
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
    /// Fills the column of `target` from `input`, which yields `annotated_schema(column)`.
    ///
    /// # Errors
    /// When the input has other columns.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, target: FillTarget) -> Result<Self> {
        let (expected, found) = (annotated_schema(&target.column), input.schema());
        if expected.fields() != found.fields() {
            return Err(DataFusionError::Plan(format!("LanceFillExec expected columns {expected}, found {found}")));
        }
        let properties = properties(FillReport::schema());
        Ok(Self { target, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for LanceFillExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FillTarget { uri, column, commit, .. } = &self.target;
        let settings: [(&str, &dyn fmt::Display); 4] =
            [("uri", uri), ("column", column.name()), ("rows", &commit.rows), ("seconds", &commit.seconds)];
        fmt_operator(format, f, "LanceFillExec", &settings)
    }
}

impl ExecutionPlan for LanceFillExec {
    single_child_plan!(LanceFillExec, |this, input| Self::try_new(input, this.target.clone())?);

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let filler = Filler {
            target: self.target.clone(),
            input: self.input.execute(partition, context)?.fuse(),
            metrics: FillMetrics::new(&self.metrics, partition),
            open: None,
            pending: PendingRows::default(),
            failure: None,
        };
        let commits = stream::try_unfold(filler, |filler| Box::pin(filler.next()));
        Ok(Box::pin(RecordBatchStreamAdapter::new(FillReport::schema(), commits)))
    }
}

#[derive(Debug)]
struct FillMetrics {
    conflicts: Count,
    times: OperatorTimes,
}

impl FillMetrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        Self {
            conflicts: MetricBuilder::new(metrics).counter("commit_conflicts", partition),
            times: OperatorTimes::new(metrics, partition),
        }
    }
}

/// Rows that wait for a commit.
#[derive(Debug, Default)]
struct PendingRows {
    /// `annotated_schema(column)`.
    batches: Vec<RecordBatch>,
    rows: u64,
    opened: Option<Instant>,
}

#[derive(Debug)]
struct OpenTable {
    dataset: Dataset,
    quarantine: Quarantine,
}

struct Filler {
    target: FillTarget,
    input: stream::Fuse<SendableRecordBatchStream>,
    metrics: FillMetrics,
    open: Option<OpenTable>,
    pending: PendingRows,
    /// The error of the input, returned after the commit of the rows before it.
    failure: Option<DataFusionError>,
}

impl Filler {
    /// Reads until a commit is due, commits, and returns its report.
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        loop {
            let deadline = self.deadline();
            match next_batch(&mut self.input, deadline).await {
                NextBatch::Batch(batch) => {
                    self.pending.opened.get_or_insert_with(Instant::now);
                    self.pending.rows += batch.num_rows() as u64;
                    self.pending.batches.push(batch);
                    let limit = self.target.commit.rows;
                    if limit == 0 || self.pending.rows < limit {
                        continue;
                    }
                }
                // Rows that were annotated before the failure are committed and reported first.
                NextBatch::Failed(error) if self.pending.rows == 0 => return Err(error),
                NextBatch::Failed(error) => self.failure = Some(error),
                NextBatch::End if self.pending.rows == 0 => return Ok(None),
                NextBatch::End | NextBatch::Deadline => {}
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
        let waiting = self.metrics.times.wait_store.timer();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.target.open().await?,
        };
        waiting.done();
        let timer = self.metrics.times.elapsed_compute.timer();
        let rows = AnnotatedRows::new(&pending.batches, &self.target)?;
        timer.done();
        let (version, written) = self.target.write(&mut open, &rows, &self.metrics).await?;
        let properties = self.target.properties(written);
        let waiting = self.metrics.times.wait_store.timer();
        open.quarantine.update(&rows.window, &properties).await?;
        waiting.done();
        self.open = Some(open);
        let quarantined = rows.window.quarantine.len() as u64;
        let moved = rows.good - written;
        Ok(FillReport { version, rows: written, quarantined, moved }.to_batch()?)
    }
}

impl FillTarget {
    async fn open(&self) -> Result<OpenTable, SinkError> {
        let dataset = open::existing(&self.uri).await?;
        let quarantine = Quarantine::open(&self.uri, &self.run_id).await?;
        Ok(OpenTable { dataset, quarantine })
    }

    /// Writes the column files of the fragments and commits them, with retries after conflicts. Returns the version,
    /// and the number of rows that received their value.
    async fn write(
        &self,
        open: &mut OpenTable,
        rows: &AnnotatedRows,
        metrics: &FillMetrics,
    ) -> Result<(u64, u64), SinkError> {
        let uri = &self.uri;
        let mut retry = CommitRetry::default();
        loop {
            advance_to_latest(uri, &mut open.dataset).await?;
            check_head(uri, &open.dataset, &self.column)?;
            let mut replacements = Vec::with_capacity(rows.fragments.len());
            let mut written = 0;
            for (id, new_values) in &rows.fragments {
                // A compaction has replaced the fragment: its rows are still null, and the next run finds them.
                let Some(fragment) = open.dataset.get_fragment(*id as usize) else { continue };
                replacements.push(self.column_file(&open.dataset, &fragment, new_values, rows, &metrics.times).await?);
                written += new_values.len() as u64;
            }
            if replacements.is_empty() {
                return Ok((open.dataset.version_id(), 0));
            }
            let operation = Operation::DataReplacement { replacements };
            let transaction = TransactionBuilder::new(open.dataset.version_id(), operation)
                .transaction_properties(Some(Arc::new(self.properties(written))))
                .build();
            let waiting = metrics.times.wait_store.timer();
            let committed = Box::pin(CommitBuilder::new(Arc::new(open.dataset.clone())).execute(transaction)).await;
            waiting.done();
            match committed {
                Ok(dataset) => {
                    open.dataset = dataset;
                    return Ok((open.dataset.version_id(), written));
                }
                Err(source) if is_conflict(&source) => {
                    metrics.conflicts.add(1);
                    retry.wait_after_conflict(uri, source).await?;
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

    /// Writes the whole column of a fragment: the new values, and the existing ones.
    async fn column_file(
        &self,
        dataset: &Dataset,
        fragment: &FileFragment,
        new_values: &[NewValue],
        rows: &AnnotatedRows,
        times: &OperatorTimes,
    ) -> Result<DataReplacementGroup, SinkError> {
        let (uri, name) = (&self.uri, self.column.name());
        let writing = || SinkError::storage(uri, "writing an annotation column");
        let count = Box::pin(fragment.physical_rows()).await.map_err(writing())?;
        // The value of each row, as a position in `values`: null at first.
        let mut values = vec![new_null_array(self.column.data_type(), 1)];
        let mut source = vec![(0, 0); count];
        let mut put = |offset: u32, position: (usize, usize)| match source.get_mut(offset as usize) {
            Some(value) => {
                *value = position;
                Ok(())
            }
            None => Err(SinkError::rows(uri, format!("row {offset} of a fragment with {count} rows"))),
        };
        if has_column(dataset, fragment, name) {
            for (column, offsets) in self.existing_values(dataset, fragment).await? {
                for (row, offset) in offsets.into_iter().enumerate() {
                    put(offset, (values.len(), row))?;
                }
                values.push(column);
            }
        }
        let first = values.len();
        values.extend(rows.values.iter().cloned());
        for new in new_values {
            put(new.offset, (first + new.batch, new.row))?;
        }
        let schema = dataset.schema().project(&[name]).map_err(writing())?;
        let arrow = Arc::new(Schema::new(vec![Field::new(name, self.column.data_type().clone(), true)]));
        let timer = times.elapsed_compute.timer();
        let batches = source.chunks(COLUMN_FILE_BATCH_ROWS).map(|part| {
            let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
            let column = interleave(&values, part)?;
            Ok(RecordBatch::try_new(Arc::clone(&arrow), vec![column])?)
        });
        let batches: Vec<lance::Result<RecordBatch>> = batches.collect();
        timer.done();
        let _waiting = times.wait_store.timer();
        Box::pin(fragment.write_columns(stream::iter(batches), &schema)).await.map_err(writing())
    }

    /// The values that the column of a fragment has, with the offsets of their rows.
    async fn existing_values(
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

/// The position of a new value in the batches, and the offset of its row in the fragment.
#[derive(Debug, Clone, Copy)]
struct NewValue {
    batch: usize,
    row: usize,
    offset: u32,
}

/// The rows of a commit.
#[derive(Debug)]
struct AnnotatedRows {
    /// The column of each batch.
    values: Vec<ArrayRef>,
    /// The good rows of each fragment.
    fragments: BTreeMap<u64, Vec<NewValue>>,
    good: u64,
    /// The changes for the quarantine.
    window: Window,
}

impl AnnotatedRows {
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
                    let value = NewValue { batch: number, row, offset: address as u32 };
                    rows.fragments.entry(address >> 32).or_default().push(value);
                    rows.good += 1;
                    // Drops the record of an earlier failure of this row, and no other: no document has an empty id.
                    let document = Document { doc_id: String::new(), source: source.clone(), row: address };
                    rows.window.documents.push(document);
                    continue;
                }
                let text_of = |column: Option<&ArrayRef>| {
                    let column = column.and_then(|column| column.as_string_opt::<i32>());
                    column.map(|column| column.value(row).to_owned()).unwrap_or_default()
                };
                rows.window.quarantine.push(FailedDocument {
                    source: source.clone(),
                    row: address,
                    doc_id: Some(ids.value(row).to_owned()),
                    stage: text_of(stages),
                    error: cut(&text_of(messages), MAX_QUARANTINED_ERROR_BYTES).to_owned(),
                    text: Some(cut(texts.value(row), MAX_QUARANTINED_TEXT_BYTES).to_owned()),
                });
            }
        }
        Ok(rows)
    }
}
