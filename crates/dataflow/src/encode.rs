//! Encodes chunks on the device pool.
//!
//! in:  `tokenized_schema(keep)`
//! out: `encoded_schema(keep, dim)`: `embedding` in the place of `_input_ids`
//!
//! Rows leave in the order they came. Batches are gathered into windows large enough to keep all devices busy, and a
//! few windows are in work at once, so that no device waits for another's remainder.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch},
    buffer::NullBuffer,
    compute::concat_batches,
    datatypes::{DataType, Field, SchemaRef, UInt32Type},
};
use async_stream::try_stream;
use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt, Stream, TryStreamExt, future::BoxFuture};
use polylance_backend::{Backend, BackendError, BackendInfo};
use polylance_schema::{columns::INPUT_IDS, encoded_schema, tokenized_schema};

use crate::{
    batches::{column, with_errors},
    datafusion_error, operator,
};

/// Name of the metric with the ids encoded so far.
pub(crate) const TOKENS: &str = "tokens";
/// Windows in work at once.
const IN_FLIGHT: usize = 3;
/// Rows in a window at most, whatever their lengths.
const WINDOW_ROWS: usize = 8192;

/// Encodes chunks.
#[derive(Debug)]
pub struct EncodeExec {
    dim: usize,
    window_tokens: usize,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl EncodeExec {
    /// Over `tokenized_schema(keep)`, for a backend of these dimensions.
    ///
    /// # Errors
    /// When the input has another schema.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, info: &BackendInfo) -> Result<Self> {
        Self::with_sizes(input, info.dim, info.window_tokens)
    }

    fn with_sizes(input: Arc<dyn ExecutionPlan>, dim: usize, window_tokens: usize) -> Result<Self> {
        let schema = input.schema();
        // The kept columns stand between `doc_id` and the eleven columns after them.
        let kept = schema.fields().len().saturating_sub(12);
        let keep = schema.fields().iter().skip(1).take(kept).map(Arc::clone).collect::<Vec<_>>();
        operator::expect_schema("EncodeExec", &schema, &tokenized_schema(&keep))?;
        let properties = operator::properties(encoded_schema(&keep, dim));
        Ok(Self { dim, window_tokens, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for EncodeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodeExec: dim={}, window_tokens={}", self.dim, self.window_tokens)
    }
}

impl ExecutionPlan for EncodeExec {
    fn name(&self) -> &'static str {
        "EncodeExec"
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
        Ok(Arc::new(Self::with_sizes(input, self.dim, self.window_tokens)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let tokens = MetricBuilder::new(&self.metrics).counter(TOKENS, partition);
        let backend = operator::backend(&context)?;
        let (schema, dim) = (self.schema(), self.dim);
        let output = Arc::clone(&schema);
        let batches = windows(self.input.execute(partition, context)?, self.window_tokens)
            .map_ok(move |batch| encoded(Arc::clone(&backend), batch, dim, Arc::clone(&output), tokens.clone()))
            .try_buffered(IN_FLIGHT)
            .map_ok(move |batch| batch.record_output(&baseline));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The rows of the input in batches of about `tokens` ids.
fn windows(mut input: SendableRecordBatchStream, tokens: usize) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let schema = input.schema();
    try_stream! {
        let (mut parts, mut filled, mut rows) = (Vec::new(), 0, 0);
        while let Some(batch) = input.try_next().await? {
            let ids = column(&batch, INPUT_IDS)?.as_list::<i32>().clone();
            let mut start = 0;
            for row in 0..batch.num_rows() {
                filled += ids.value_length(row) as usize;
                rows += 1;
                if filled >= tokens || rows >= WINDOW_ROWS {
                    parts.push(batch.slice(start, row + 1 - start));
                    yield concat_batches(&schema, &parts)?;
                    parts.clear();
                    (start, filled, rows) = (row + 1, 0, 0);
                }
            }
            if start < batch.num_rows() {
                parts.push(batch.slice(start, batch.num_rows() - start));
            }
        }
        if !parts.is_empty() {
            yield concat_batches(&schema, &parts)?;
        }
    }
}

async fn encoded(
    backend: Arc<dyn Backend>,
    batch: RecordBatch,
    dim: usize,
    schema: SchemaRef,
    tokens: Count,
) -> Result<RecordBatch> {
    let at = batch.schema_ref().index_of(INPUT_IDS)?;
    let ids = batch.column(at).as_list::<i32>();
    let good: Vec<usize> = (0..batch.num_rows()).filter(|&row| ids.is_valid(row)).collect();
    let inputs: Vec<Vec<u32>> =
        good.iter().map(|&row| ids.value(row).as_primitive::<UInt32Type>().values().to_vec()).collect();
    let count: usize = inputs.iter().map(Vec::len).sum();
    let vectors = each(backend, inputs).await?;
    tokens.add(count);

    let mut values = vec![0.0; batch.num_rows() * dim];
    let mut valid = vec![false; batch.num_rows()];
    let mut messages = vec![None; batch.num_rows()];
    for (row, vector) in good.into_iter().zip(vectors) {
        match vector {
            Ok(vector) if vector.len() == dim => {
                values[row * dim..][..dim].copy_from_slice(&vector);
                valid[row] = true;
            }
            Ok(vector) => messages[row] = Some(format!("the device gave {} dimensions, expected {dim}", vector.len())),
            Err(message) => messages[row] = Some(message),
        }
    }
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let values: ArrayRef = Arc::new(Float32Array::from(values));
    let embedding = FixedSizeListArray::try_new(item, dim as i32, values, Some(NullBuffer::from(valid)))?;
    let batch = with_errors(&batch, "encode", &messages)?;
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(embedding);
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The vector of an input, or why it has none.
type Encoded = std::result::Result<Vec<f32>, String>;

/// The vector of each input, or why it has none: a refused call is repeated in halves until the input is found.
fn each(backend: Arc<dyn Backend>, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Vec<Encoded>>> {
    async move {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        match backend.encode(inputs.clone()).await {
            Ok(embeddings) => {
                let vectors: Vec<_> =
                    embeddings.values.chunks(embeddings.dim.max(1)).map(|vector| Ok(vector.to_vec())).collect();
                let (expected, found) = (inputs.len(), vectors.len());
                if found == expected {
                    Ok(vectors)
                } else {
                    Err(datafusion_error::miscounted("encode", expected, found))
                }
            }
            Err(BackendError::Input(message)) if inputs.len() == 1 => Ok(vec![Err(message)]),
            // What does not fit into a device's memory at once may fit in two parts.
            Err(BackendError::Input(_) | BackendError::OutOfMemory { .. }) if inputs.len() > 1 => {
                let (first, second) = inputs.split_at(inputs.len() / 2);
                let mut results = each(Arc::clone(&backend), first.to_vec()).await?;
                results.extend(each(backend, second.to_vec()).await?);
                Ok(results)
            }
            Err(error) => Err(datafusion_error::backend(error)),
        }
    }
    .boxed()
}
