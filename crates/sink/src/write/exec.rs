//! Writes encoded chunks to data files, one window at a time.
//!
//! in:  `doc_id, …keep, chunk, char_start, char_end, text, n_tokens, truncated, embedding, content_hash, _source,
//!      _row, _error, …heads`
//! out: one row per window, see [`super::window`]
//!
//! The rows of a good document get the run's id, lose the columns that the table does not store, and are streamed to
//! data files that no version of the table refers to yet. A document with an error in any row goes to the window's
//! quarantine list as a whole. Windows close between documents. The writer is at most one window ahead of the commits.

use std::{fmt, mem, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray},
    datatypes::{SchemaRef, UInt32Type},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder},
        stream::RecordBatchReceiverStream,
    },
};
use polylance_dataflow::{
    operator::{fmt_operator, properties},
    single_child_plan,
};
use polylance_schema::{
    columns::{N_TOKENS, RUN_ID},
    encoded_schema, with_heads,
};
use tokio::{sync::mpsc::Sender, time::Instant};

use super::{
    data_files::{DataFiles, WrittenFiles},
    documents::{DocumentColumns, DocumentRows, OpenDocument, is_readable},
    next_batch::{NextBatch, next_batch},
    window::{FailedDocument, Window, max_window_duration, window_schema},
};
use crate::{error::SinkError, operator::OperatorTimes, table::target::TableTarget};

/// Name of the metric that counts the documents sent to the quarantine so far.
pub const QUARANTINED_METRIC: &str = "documents_quarantined";
/// Bytes of quarantined texts and messages that close a window.
pub(super) const MAX_WINDOW_QUARANTINE_BYTES: usize = 16 << 20;

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
    /// When the columns of the input differ from [`encoded_schema`] of the target, when it has more than one partition,
    /// or when Lance cannot store the type of a kept column.
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
        let properties = properties(window_schema());
        Ok(Self { target, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The table that the rows are for.
    pub fn target(&self) -> &TableTarget {
        &self.target
    }
}

impl DisplayAs for LanceWriteExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableTarget { uri, text, commit, .. } = &self.target;
        let text = format!("{text:?}");
        let settings: [(&str, &dyn fmt::Display); 4] =
            [("uri", uri), ("text", &text), ("rows", &commit.rows), ("seconds", &commit.seconds)];
        fmt_operator(format, f, "LanceWriteExec", &settings)
    }
}

impl ExecutionPlan for LanceWriteExec {
    single_child_plan!(LanceWriteExec, |this, input| Self::try_new(input, this.target.clone())?);

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
}

#[derive(Debug)]
struct WriteMetrics {
    windows: Count,
    documents: Count,
    chunks: Count,
    quarantined: Count,
    times: OperatorTimes,
}

impl WriteMetrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            windows: counter("windows"),
            documents: counter("documents_written"),
            chunks: counter("chunks_written"),
            quarantined: counter(QUARANTINED_METRIC),
            times: OperatorTimes::new(metrics, partition),
        }
    }
}

/// The window that is being filled.
#[derive(Debug, Default)]
struct OpenWindow {
    contents: Window,
    quarantine_bytes: usize,
    /// When its first row arrived.
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
            match next_batch(&mut input, self.deadline()).await {
                NextBatch::Batch(batch) => self.take(&batch).await?,
                NextBatch::Failed(error) => {
                    // The complete documents are good: the next run need not embed them again.
                    self.close_window().await?;
                    return Err(error);
                }
                NextBatch::Deadline => {
                    self.close_window().await?;
                    continue;
                }
                NextBatch::End => break,
            }
            if self.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                self.close_window().await?;
            }
        }
        self.finish_document().await?;
        self.close_window().await
    }

    /// When the open window must close; `None` while it is empty.
    fn deadline(&self) -> Option<Instant> {
        self.window.opened?.checked_add(max_window_duration(self.target.commit))
    }

    /// Takes one batch: all documents but the last are complete.
    async fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let timer = self.metrics.times.elapsed_compute.timer();
        let columns = DocumentColumns::new(batch)?;
        let mut documents = columns.documents();
        timer.done();
        let Some(first) = documents.first() else { return Ok(()) };
        if let Some(document) = self.document.as_mut().filter(|d| d.continues(&columns, first.rows.start)) {
            document.push(&self.context, batch, &columns, first).await?;
            documents.remove(0);
        }
        let Some(last) = documents.pop() else { return Ok(()) };
        self.finish_document().await?;
        self.take_documents(batch, &columns, &documents).await?;
        self.document = Some(OpenDocument::begin(&self.context, batch, &columns, &last).await?);
        Ok(())
    }

    /// Takes whole documents, in as few slices of the batch as windows and failed documents allow.
    async fn take_documents(
        &mut self,
        batch: &RecordBatch,
        columns: &DocumentColumns<'_>,
        documents: &[DocumentRows],
    ) -> Result<()> {
        let mut good = 0..0;
        for document in documents {
            if let Some(row) = document.failed_row {
                self.write(batch, &mut good).await?;
                self.quarantine(columns.failed_document(row));
            } else {
                if good.is_empty() {
                    good.start = document.rows.start;
                }
                good.end = document.rows.end;
                self.window.contents.documents.push(columns.document(document.rows.start));
            }
            if self.is_full(good.len()) {
                self.write(batch, &mut good).await?;
                self.close_window().await?;
            }
        }
        self.write(batch, &mut good).await
    }

    /// Takes the open document, of which all rows have arrived.
    async fn finish_document(&mut self) -> Result<()> {
        let Some(mut document) = self.document.take() else { return Ok(()) };
        if let Some(failed) = document.failed.take() {
            self.quarantine(failed);
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

    fn quarantine(&mut self, failed: FailedDocument) {
        self.window.opened.get_or_insert_with(Instant::now);
        let text = failed.text.as_ref().map_or(0, String::len);
        self.window.quarantine_bytes += failed.error.len() + text + failed.source.len();
        self.window.contents.quarantine.push(failed);
        self.metrics.quarantined.add(1);
    }

    /// Whether the window is full with `waiting` more rows.
    fn is_full(&self, waiting: usize) -> bool {
        let rows = self.window.contents.chunks + waiting as u64;
        let limit = self.target.commit.rows;
        (limit > 0 && rows >= limit) || self.window.quarantine_bytes >= MAX_WINDOW_QUARANTINE_BYTES
    }

    /// Sends `rows` of `batch` to the data files and empties the range.
    async fn write(&mut self, batch: &RecordBatch, rows: &mut std::ops::Range<usize>) -> Result<()> {
        let rows = mem::take(rows);
        if rows.is_empty() {
            return Ok(());
        }
        let timer = self.metrics.times.elapsed_compute.timer();
        let batch = self.table_rows(&batch.slice(rows.start, rows.len()))?;
        let window = &mut self.window;
        window.opened.get_or_insert_with(Instant::now);
        window.contents.chunks += batch.num_rows() as u64;
        window.contents.tokens += token_sum(&batch);
        timer.done();
        self.metrics.chunks.add(batch.num_rows());
        let files = match window.files.take() {
            Some(files) => files,
            None => DataFiles::open(self.target.uri.clone(), Arc::clone(&self.schema)),
        };
        let waiting = self.metrics.times.wait_store.timer();
        if !files.write(batch).await {
            files.close().await?;
            return Err(SinkError::rows(&self.target.uri, "the data file writer ended early").into());
        }
        waiting.done();
        window.files = Some(files);
        Ok(())
    }

    /// The columns of the table: the encoded ones that it stores, and the run's id.
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

    /// Finishes the data files and sends the window to the commit operator; an empty window stays open.
    async fn close_window(&mut self) -> Result<()> {
        let mut window = mem::take(&mut self.window);
        if let Some(files) = window.files.take() {
            let waiting = self.metrics.times.wait_store.timer();
            let WrittenFiles { fragments, fields } = files.close().await?;
            waiting.done();
            (window.contents.fragments, window.contents.fields) = (fragments, fields);
        }
        let Window { documents, quarantine, .. } = &window.contents;
        if documents.is_empty() && quarantine.is_empty() {
            return Ok(());
        }
        self.metrics.windows.add(1);
        self.metrics.documents.add(documents.len());
        let timer = self.metrics.times.elapsed_compute.timer();
        let batch = window.contents.to_batch()?;
        timer.done();
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
