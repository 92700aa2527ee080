//! Cuts documents into chunks and tokenizes them on the backend's threads.
//!
//! in:  `source_schema(keep)`, one row a document
//! out: `tokenized_schema(keep)`, one row a chunk; a refused row stays one row
//!
//! Rows leave in the order they came; a few batches are tokenized at once.

use std::{fmt, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanBuilder, ListBuilder, RecordBatch, StringBuilder, UInt32Builder, UInt64Array,
        UInt64Builder,
    },
    compute::take,
    datatypes::{DataType, Field, SchemaRef},
};
use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt, TryStreamExt, future::BoxFuture, stream};
use polylance_backend::{Backend, BackendError, Chunk, TokenizeSpec};
use polylance_schema::{
    Stage,
    columns::{CHAR_END, CHAR_START, CHUNK, ERROR, INPUT_IDS, N_TOKENS, TEXT, TRUNCATED},
    kept_fields, source_schema, tokenized_schema,
};

use super::operator;
use crate::{
    batches::{column, with_errors},
    datafusion_error,
};

/// Batches that are tokenized at once.
const IN_FLIGHT: usize = 4;
/// Chunks in an output batch at most.
const OUTPUT_ROWS: usize = 4096;

/// Tokenizes documents.
#[derive(Debug)]
pub struct TokenizeExec {
    spec: TokenizeSpec,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TokenizeExec {
    /// Over `source_schema(keep)`.
    ///
    /// # Errors
    /// When the input has another schema.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, spec: TokenizeSpec) -> Result<Self> {
        let schema = input.schema();
        let keep = kept_fields(&schema);
        operator::expect_schema("TokenizeExec", &schema, &source_schema(keep))?;
        let properties = operator::properties(tokenized_schema(keep));
        Ok(Self { spec, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for TokenizeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenizeExec: prefix={:?}, {}", self.spec.prefix, self.spec.chunking)
    }
}

impl ExecutionPlan for TokenizeExec {
    fn name(&self) -> &'static str {
        "TokenizeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = operator::only_child(self.name(), children)?;
        Ok(Arc::new(Self::try_new(input, self.spec.clone())?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let backend = operator::backend(&context)?;
        let (spec, schema) = (self.spec.clone(), self.schema());
        let output = Arc::clone(&schema);
        let batches = self
            .input
            .execute(partition, context)?
            .map_ok(move |batch| tokenized(Arc::clone(&backend), batch, spec.clone(), Arc::clone(&output)))
            .try_buffered(IN_FLIGHT)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
            .map_ok(move |batch| batch.record_output(&baseline));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

async fn tokenized(
    backend: Arc<dyn Backend>,
    batch: RecordBatch,
    spec: TokenizeSpec,
    schema: SchemaRef,
) -> Result<Vec<RecordBatch>> {
    let text = column(&batch, TEXT)?.as_string::<i32>();
    let refused = column(&batch, ERROR)?;
    let good: Vec<usize> = (0..batch.num_rows()).filter(|&row| refused.is_null(row)).collect();
    let texts = good.iter().map(|&row| text.value(row).to_owned()).collect();
    let mut chunks = vec![Vec::new(); batch.num_rows()];
    let mut messages = vec![None; batch.num_rows()];
    for (row, result) in good.into_iter().zip(each(backend, texts, spec).await?) {
        match result {
            Ok(of_row) => chunks[row] = of_row,
            Err(message) => messages[row] = Some(message),
        }
    }
    let batch = with_errors(&batch, Stage::Tokenize, &messages)?;
    Ok(explode(&batch, &chunks, &schema)?)
}

/// The chunks of a text, or why it has none.
type Tokenized = std::result::Result<Vec<Chunk>, String>;

/// The chunks of each text, or why it has none: a refused call is repeated in halves until the text is found.
fn each(
    backend: Arc<dyn Backend>,
    texts: Vec<String>,
    spec: TokenizeSpec,
) -> BoxFuture<'static, Result<Vec<Tokenized>>> {
    async move {
        match backend.tokenize(texts.clone(), &spec).await {
            Ok(chunks) if chunks.len() == texts.len() => Ok(chunks.into_iter().map(not_empty).collect()),
            Ok(chunks) => Err(datafusion_error::miscounted("tokenize", texts.len(), chunks.len())),
            Err(BackendError::Input(message)) if texts.len() <= 1 => {
                Ok(texts.iter().map(|_| Err(message.clone())).collect())
            }
            Err(BackendError::Input(_)) => {
                let (first, second) = texts.split_at(texts.len() / 2);
                let mut results = each(Arc::clone(&backend), first.to_vec(), spec.clone()).await?;
                results.extend(each(backend, second.to_vec(), spec).await?);
                Ok(results)
            }
            Err(error) => Err(datafusion_error::backend(error)),
        }
    }
    .boxed()
}

/// A good row becomes at least one row.
fn not_empty(chunks: Vec<Chunk>) -> std::result::Result<Vec<Chunk>, String> {
    if chunks.is_empty() { Err("the text has no chunk".into()) } else { Ok(chunks) }
}

/// One row a chunk, in batches of bounded length.
fn explode(
    batch: &RecordBatch,
    chunks: &[Vec<Chunk>],
    schema: &SchemaRef,
) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    let rows: Vec<(usize, usize)> =
        (0..batch.num_rows()).flat_map(|row| (0..chunks[row].len().max(1)).map(move |chunk| (row, chunk))).collect();
    rows.chunks(OUTPUT_ROWS).map(|rows| part(batch, chunks, schema, rows)).collect()
}

/// These chunks, named by their row and their position in it.
fn part(
    batch: &RecordBatch,
    chunks: &[Vec<Chunk>],
    schema: &SchemaRef,
    rows: &[(usize, usize)],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let document = column(batch, TEXT)?.as_string::<i32>();
    let (mut chunk, mut n_tokens, mut truncated) = (UInt32Builder::new(), UInt32Builder::new(), BooleanBuilder::new());
    let (mut start, mut end, mut text) = (UInt64Builder::new(), UInt64Builder::new(), StringBuilder::new());
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    let mut ids = ListBuilder::new(UInt32Builder::new()).with_field(item);
    for &(row, at) in rows {
        chunk.append_value(at as u32);
        if let Some(part) = chunks[row].get(at) {
            start.append_value(part.chars.start);
            end.append_value(part.chars.end);
            text.append_value(&document.value(row)[part.bytes.clone()]);
            n_tokens.append_value(part.input_ids.len() as u32);
            truncated.append_value(part.truncated);
            ids.values().append_slice(&part.input_ids);
            ids.append(true);
        } else {
            start.append_value(0);
            end.append_value(0);
            text.append_option(document.is_valid(row).then(|| document.value(row)));
            n_tokens.append_value(0);
            truncated.append_value(false);
            ids.append(false);
        }
    }
    let taken = UInt64Array::from_iter_values(rows.iter().map(|&(row, _)| row as u64));
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef, _> {
        Ok(match field.name().as_str() {
            CHUNK => Arc::new(chunk.finish()),
            CHAR_START => Arc::new(start.finish()),
            CHAR_END => Arc::new(end.finish()),
            TEXT => Arc::new(text.finish()),
            N_TOKENS => Arc::new(n_tokens.finish()),
            TRUNCATED => Arc::new(truncated.finish()),
            INPUT_IDS => Arc::new(ids.finish()),
            name => take(column(batch, name)?, &taken, None)?,
        })
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, arrow::error::ArrowError>>()?)
}
