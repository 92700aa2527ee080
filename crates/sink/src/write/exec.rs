//! Writes encoded chunks to data files, a window at a time.
//!
//! in:  `doc_id, …keep, chunk, char_start, char_end, text, n_tokens, truncated, embedding, content_hash, _source,
//!      _row, _error, …heads`
//! out: one row a window, see [`super::window`]
//!
//! A good document's rows get the run's id, lose the columns that only travel, and are streamed into data
//! files that no version of the table names yet. A document with an error in any row goes to the
//! window's quarantine list instead, whole. Windows close between documents. The task runs at most one
//! window ahead of the commits.

use std::{fmt, mem, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray},
    datatypes::{SchemaRef, UInt32Type},
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
        stream::RecordBatchReceiverStream,
    },
};
use futures::StreamExt;
use polylance_schema::{
    columns::{N_TOKENS, RUN_ID},
    encoded_schema, with_heads,
};
use tokio::{sync::mpsc::Sender, time::Instant};

use super::{
    data_files::{DataFiles, Written},
    documents::{Locators, OpenDocument, Run, is_readable},
    window::{BadDocument, Window, longest_window, window_schema},
};
use crate::{error::SinkError, table::target::TableTarget};

/// Name of the metric with the documents refused so far.
pub(crate) const QUARANTINED: &str = "documents_quarantined";
/// Bytes of quarantined text and messages that close a window.
const QUARANTINE_BYTES: usize = 16 << 20;

/// Writes uncommitted data files.
#[derive(Debug)]
pub struct LanceWriteExec {
    target: TableTarget,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LanceWriteExec {
    /// Writes `input` for `target`.
    ///
    /// # Errors
    /// When the input has other columns than [`encoded_schema`] of the target or more than one partition, or
    /// when Lance cannot store a kept column's type.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, target: TableTarget) -> Result<Self> {
        let partitions = input.output_partitioning().partition_count();
        if partitions != 1 {
            return Err(DataFusionError::Plan(format!("LanceWriteExec needs one input partition, found {partitions}")));
        }
        let expected = with_heads(&encoded_schema(&target.keep, target.contract.dim), &target.heads);
        let found = input.schema();
        let same = expected.fields().len() == found.fields().len()
            && expected.fields().iter().zip(found.fields()).all(|(e, f)| {
                e.name() == f.name()
                    && e.data_type().equals_datatype(f.data_type())
                    && is_readable(f.name(), f.data_type())
            });
        if !same {
            let message = format!("LanceWriteExec expected columns {expected}, found {found}");
            return Err(DataFusionError::Plan(message));
        }
        if let Err(error) = lance_core::datatypes::Schema::try_from(target.schema().as_ref()) {
            return Err(DataFusionError::Plan(format!("a kept column cannot be stored in a lance table: {error}")));
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(window_schema()),
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

impl DisplayAs for LanceWriteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableTarget { uri, text, commit, .. } = &self.target;
        write!(f, "LanceWriteExec: uri={uri}, text={text:?}, rows={}, seconds={}", commit.rows, commit.seconds)
    }
}

impl ExecutionPlan for LanceWriteExec {
    fn name(&self) -> &'static str {
        "LanceWriteExec"
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
            _ => Err(DataFusionError::Plan("LanceWriteExec has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let mut builder = RecordBatchReceiverStream::builder(window_schema(), 1);
        let writer = WindowWriter {
            schema: self.target.schema(),
            target: self.target.clone(),
            context,
            metrics: WriteMetrics::new(&self.metrics, partition),
            output: builder.tx(),
            document: None,
            window: OpenWindow::default(),
        };
        let output = builder.tx();
        builder.spawn(Box::pin(async move {
            // Through the queue, so that the error does not overtake a finished window.
            if let Err(error) = writer.run(input).await {
                output.send(Err(error)).await.ok();
            }
            Ok(())
        }));
        Ok(builder.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[derive(Debug)]
struct WriteMetrics {
    windows: Count,
    documents: Count,
    chunks: Count,
    quarantined: Count,
    write_time: Time,
}

impl WriteMetrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            windows: counter("windows"),
            documents: counter("documents_written"),
            chunks: counter("chunks_written"),
            quarantined: counter(QUARANTINED),
            write_time: MetricBuilder::new(metrics).subset_time("write_time", partition),
        }
    }
}

/// The window being filled.
#[derive(Debug, Default)]
struct OpenWindow {
    contents: Window,
    quarantine_bytes: usize,
    /// When the first row came.
    opened: Option<Instant>,
    files: Option<DataFiles>,
}

struct WindowWriter {
    schema: SchemaRef,
    target: TableTarget,
    context: Arc<TaskContext>,
    metrics: WriteMetrics,
    output: Sender<Result<RecordBatch>>,
    document: Option<OpenDocument>,
    window: OpenWindow,
}

impl WindowWriter {
    async fn run(mut self, mut input: SendableRecordBatchStream) -> Result<()> {
        loop {
            let Some(next) = self.next(&mut input).await else {
                self.close_window().await?;
                continue;
            };
            let batch = match next {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    // The documents that are complete are good: the next run need not embed them again.
                    self.close_window().await?;
                    return Err(error);
                }
                None => break,
            };
            self.take(&batch).await?;
            if self.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                self.close_window().await?;
            }
        }
        self.finish_document().await?;
        self.close_window().await
    }

    /// What the input yields; `None` when the window's time is up before.
    async fn next(&self, input: &mut SendableRecordBatchStream) -> Option<Option<Result<RecordBatch>>> {
        match self.deadline() {
            Some(deadline) => tokio::time::timeout_at(deadline, input.next()).await.ok(),
            None => Some(input.next().await),
        }
    }

    /// When the open window must close by time; `None` while it is empty.
    fn deadline(&self) -> Option<Instant> {
        self.window.opened?.checked_add(longest_window(self.target.commit))
    }

    /// Takes one batch: all documents but the last are complete.
    async fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let locators = Locators::new(batch)?;
        let mut runs = locators.runs();
        let Some(first) = runs.first() else { return Ok(()) };
        if let Some(document) = self.document.as_mut().filter(|d| d.continues(&locators, first.rows.start)) {
            document.push(&self.context, batch, &locators, first).await?;
            runs.remove(0);
        }
        let Some(last) = runs.pop() else { return Ok(()) };
        self.finish_document().await?;
        self.take_documents(batch, &locators, &runs).await?;
        self.document = Some(OpenDocument::begin(&self.context, batch, &locators, &last).await?);
        Ok(())
    }

    /// Takes whole documents, as few slices of the batch as windows and bad documents allow.
    async fn take_documents(&mut self, batch: &RecordBatch, locators: &Locators<'_>, runs: &[Run]) -> Result<()> {
        let mut good = 0..0;
        for run in runs {
            if let Some(row) = run.bad {
                self.write(batch, &mut good).await?;
                self.quarantine(locators.bad_document(row));
            } else {
                if good.is_empty() {
                    good.start = run.rows.start;
                }
                good.end = run.rows.end;
                self.window.contents.documents.push(locators.document(run.rows.start));
            }
            if self.is_full(good.len()) {
                self.write(batch, &mut good).await?;
                self.close_window().await?;
            }
        }
        self.write(batch, &mut good).await
    }

    /// The document that was arriving is complete.
    async fn finish_document(&mut self) -> Result<()> {
        let Some(mut document) = self.document.take() else { return Ok(()) };
        if let Some(bad) = document.bad.take() {
            self.quarantine(bad);
        } else {
            self.window.contents.documents.push(document.document.clone());
            let (mut spilled, rows) = document.into_rows().await?;
            while let Some(rest) = spilled.take() {
                if let Some((batch, rest)) = rest.next().await? {
                    self.write(&batch, &mut (0..batch.num_rows())).await?;
                    spilled = Some(rest);
                }
            }
            for batch in rows {
                self.write(&batch, &mut (0..batch.num_rows())).await?;
            }
        }
        if self.is_full(0) { self.close_window().await } else { Ok(()) }
    }

    fn quarantine(&mut self, bad: BadDocument) {
        self.window.opened.get_or_insert_with(Instant::now);
        let text = bad.text.as_ref().map_or(0, String::len);
        self.window.quarantine_bytes += bad.error.len() + text + bad.source.len();
        self.window.contents.quarantine.push(bad);
        self.metrics.quarantined.add(1);
    }

    fn is_full(&self, waiting: usize) -> bool {
        let rows = self.window.contents.chunks + waiting as u64;
        let limit = self.target.commit.rows;
        (limit > 0 && rows >= limit) || self.window.quarantine_bytes >= QUARANTINE_BYTES
    }

    /// Sends `rows` of `batch` to the data files and empties the range.
    async fn write(&mut self, batch: &RecordBatch, rows: &mut std::ops::Range<usize>) -> Result<()> {
        let rows = mem::take(rows);
        if rows.is_empty() {
            return Ok(());
        }
        let timer = self.metrics.write_time.timer();
        let batch = self.table_rows(&batch.slice(rows.start, rows.len()))?;
        let window = &mut self.window;
        window.opened.get_or_insert_with(Instant::now);
        window.contents.chunks += batch.num_rows() as u64;
        window.contents.tokens += token_sum(&batch);
        self.metrics.chunks.add(batch.num_rows());
        let files = match window.files.take() {
            Some(files) => files,
            None => DataFiles::open(self.target.uri.clone(), Arc::clone(&self.schema)),
        };
        if !files.write(batch).await {
            files.close().await?;
            return Err(SinkError::rows(&self.target.uri, "the data file writer ended early").into());
        }
        window.files = Some(files);
        timer.done();
        Ok(())
    }

    /// The table's columns: the encoded ones without those that travel, and the run's id.
    fn table_rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let run_id = || Arc::new(StringArray::from_iter_values((0..batch.num_rows()).map(|_| &self.target.run_id)));
        let columns = self.schema.fields().iter().map(|field| match field.name().as_str() {
            RUN_ID => Ok(run_id() as ArrayRef),
            name => batch
                .column_by_name(name)
                .cloned()
                .ok_or_else(|| SinkError::rows(&self.target.uri, format!("a batch without `{name}`"))),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|error| SinkError::rows(&self.target.uri, error.to_string()).into())
    }

    /// Finishes the data files and hands the window over; an empty window stays open.
    async fn close_window(&mut self) -> Result<()> {
        let mut window = mem::take(&mut self.window);
        if let Some(files) = window.files.take() {
            let Written { fragments, fields } = files.close().await?;
            (window.contents.fragments, window.contents.fields) = (fragments, fields);
        }
        let Window { documents, quarantine, .. } = &window.contents;
        if documents.is_empty() && quarantine.is_empty() {
            return Ok(());
        }
        self.metrics.windows.add(1);
        self.metrics.documents.add(documents.len());
        let batch = window.contents.to_batch()?;
        self.output
            .send(Ok(batch))
            .await
            .map_err(|_| DataFusionError::Execution("the commit operator has stopped".to_owned()))
    }
}

fn token_sum(batch: &RecordBatch) -> u64 {
    let Some(tokens) = batch.column_by_name(N_TOKENS) else { return 0 };
    tokens.as_primitive::<UInt32Type>().values().iter().map(|&n| u64::from(n)).sum()
}
