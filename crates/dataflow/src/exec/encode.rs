//! Encodes chunks on the device pool.
//!
//! in:  `tokenized_schema(keep)`
//! out: `encoded_schema(keep, dim)`: `embedding` in the place of `_input_ids`, and behind it all a column for each
//! head that shares the pass
//!
//! Rows leave in the order they came. Batches are gathered into windows large enough to keep all devices busy, and a
//! few windows are in work at once, so that no device waits for another's remainder. With heads a window holds whole
//! documents, so that what the borders of chunks cut is joined before it leaves. A chunk that a head cannot annotate
//! keeps its vector and has no value in the head's column.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch},
    buffer::NullBuffer,
    compute::concat_batches,
    datatypes::{DataType, Field, FieldRef, SchemaRef, UInt32Type},
};
use async_stream::try_stream;
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture};
use polylance_backend::{Annotated, Backend, BackendError, BackendInfo, EncodeInput};
use polylance_schema::{
    HeadContract, Stage, TaskSpec,
    columns::{DOC_ID, INPUT_IDS, TEXT},
    encoded_schema, kept_fields, tokenized_schema, with_heads,
};

use super::operator;
use crate::{
    annotations::{
        column::{self as annotation, AnnotatedRow},
        locate::place,
    },
    batches::{column, with_errors},
    datafusion_error,
    shutdown::Stop,
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
    shape: Shape,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What comes out, and how much at once.
#[derive(Debug, Clone)]
struct Shape {
    dim: usize,
    window_tokens: usize,
    /// Columns with their contracts.
    heads: Vec<FieldRef>,
    /// What the heads are asked.
    asked: Vec<TaskSpec>,
}

impl EncodeExec {
    /// Over `tokenized_schema(keep)`, for a backend of these dimensions whose heads fill `heads`, columns that carry
    /// their [`HeadContract`].
    ///
    /// # Errors
    /// When the input has another schema, or a column has no contract.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, info: &BackendInfo, heads: &[FieldRef]) -> Result<Self> {
        let asked = heads.iter().map(|column| task(column)).collect::<Result<_>>()?;
        let shape = Shape { dim: info.dim, window_tokens: info.window_tokens, heads: heads.to_vec(), asked };
        Self::of_shape(input, shape)
    }

    fn of_shape(input: Arc<dyn ExecutionPlan>, shape: Shape) -> Result<Self> {
        let schema = input.schema();
        let keep = kept_fields(&schema);
        operator::expect_schema("EncodeExec", &schema, &tokenized_schema(keep))?;
        let properties = operator::properties(with_heads(&encoded_schema(keep, shape.dim), &shape.heads));
        Ok(Self { shape, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

/// What the head of a column is asked.
fn task(column: &Field) -> Result<TaskSpec> {
    let contract = HeadContract::of(column).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let missing = || DataFusionError::Plan(format!("column {:?} is no annotation", column.name()));
    Ok(contract.ok_or_else(missing)?.spec)
}

impl DisplayAs for EncodeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { dim, window_tokens, heads, .. } = &self.shape;
        write!(f, "EncodeExec: dim={dim}, window_tokens={window_tokens}")?;
        if heads.is_empty() {
            return Ok(());
        }
        write!(f, ", heads={}", heads.iter().map(|head| head.name().as_str()).collect::<Vec<_>>().join(","))
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
        Ok(Arc::new(Self::of_shape(input, self.shape.clone())?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let tokens = MetricBuilder::new(&self.metrics).counter(TOKENS, partition);
        let backend = operator::backend(&context)?;
        let (schema, shape) = (self.schema(), Arc::new(self.shape.clone()));
        if backend.heads() != shape.asked {
            let (asked, there) = (shape.asked.len(), backend.heads().len());
            let message = format!("the plan asks {asked} heads, the backend has {there}, or others");
            return Err(DataFusionError::Plan(message));
        }
        let output = Arc::clone(&schema);
        let stop = Stop::of(&context);
        let windows = windows(self.input.execute(partition, context)?, self.shape.window());
        let batches = stop
            .before_it_begins(windows)
            .map(move |window| {
                let (backend, shape, output) = (Arc::clone(&backend), Arc::clone(&shape), Arc::clone(&output));
                let tokens = tokens.clone();
                // An error waits for the windows before it.
                async move { encoded(backend, window?, shape, output, tokens).await }
            })
            .buffered(IN_FLIGHT)
            .map_ok(move |batch| batch.record_output(&baseline));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stop.before_it_hurries(batches))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// When a window is full, and where it may end.
#[derive(Debug, Clone, Copy)]
struct Limit {
    tokens: usize,
    whole_documents: bool,
}

impl Shape {
    fn window(&self) -> Limit {
        Limit { tokens: self.window_tokens, whole_documents: !self.heads.is_empty() }
    }
}

/// The rows of the input in batches of about so many ids.
fn windows(mut input: SendableRecordBatchStream, limit: Limit) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let schema = input.schema();
    try_stream! {
        let (mut parts, mut filled, mut rows) = (Vec::new(), 0, 0);
        let mut document: Option<String> = None;
        while let Some(batch) = input.try_next().await? {
            let ids = column(&batch, INPUT_IDS)?.as_list::<i32>().clone();
            let documents = column(&batch, DOC_ID)?.as_string::<i32>().clone();
            let mut start = 0;
            for row in 0..batch.num_rows() {
                let full = filled >= limit.tokens || rows >= WINDOW_ROWS;
                let same = documents.is_valid(row) && document.as_deref() == Some(documents.value(row));
                if full && !(limit.whole_documents && same) {
                    parts.push(batch.slice(start, row - start));
                    yield concat_batches(&schema, &parts)?;
                    parts.clear();
                    (start, filled, rows) = (row, 0, 0);
                }
                filled += ids.value_length(row) as usize;
                rows += 1;
                if limit.whole_documents {
                    document = Some(documents.value(row).to_owned());
                }
            }
            parts.push(batch.slice(start, batch.num_rows() - start));
        }
        if rows > 0 {
            yield concat_batches(&schema, &parts)?;
        }
    }
}

async fn encoded(
    backend: Arc<dyn Backend>,
    batch: RecordBatch,
    shape: Arc<Shape>,
    schema: SchemaRef,
    tokens: Count,
) -> Result<RecordBatch> {
    let at = batch.schema_ref().index_of(INPUT_IDS)?;
    let (ids, texts) = (batch.column(at).as_list::<i32>(), column(&batch, TEXT)?.as_string::<i32>());
    let good: Vec<usize> = (0..batch.num_rows()).filter(|&row| ids.is_valid(row)).collect();
    let input = |&row: &usize| EncodeInput {
        input_ids: ids.value(row).as_primitive::<UInt32Type>().values().to_vec(),
        text: if shape.heads.is_empty() { String::new() } else { texts.value(row).to_owned() },
    };
    let inputs: Vec<EncodeInput> = good.iter().map(input).collect();
    let count: usize = inputs.iter().map(|input| input.input_ids.len()).sum();
    let encoded = each(backend, inputs).await?;
    tokens.add(count);

    let dim = shape.dim;
    let mut values = vec![0.0; batch.num_rows() * dim];
    let mut valid = vec![false; batch.num_rows()];
    let mut messages = vec![None; batch.num_rows()];
    let mut said = vec![vec![AnnotatedRow::default(); batch.num_rows()]; shape.heads.len()];
    for (row, one) in good.into_iter().zip(encoded) {
        match one {
            Ok(one) if one.vector.len() == dim => {
                values[row * dim..][..dim].copy_from_slice(&one.vector);
                valid[row] = true;
                for (rows, annotation) in said.iter_mut().zip(one.annotations) {
                    rows[row].annotation = annotation.ok();
                }
            }
            Ok(one) => messages[row] = Some(format!("the device gave {} dimensions, expected {dim}", one.vector.len())),
            Err(message) => messages[row] = Some(message),
        }
    }
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let values: ArrayRef = Arc::new(Float32Array::from(values));
    let embedding = FixedSizeListArray::try_new(item, dim as i32, values, Some(NullBuffer::from(valid)))?;
    let batch = with_errors(&batch, Stage::Encode, &messages)?;
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(embedding);
    for (spec, mut rows) in shape.asked.iter().zip(said) {
        place(&batch, spec, &mut rows)?;
        columns.push(annotation::column(spec, &rows)?);
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// What a pass gave for one input.
struct One {
    vector: Vec<f32>,
    annotations: Vec<Annotated>,
}

/// What each input gave, or why it gave nothing: a refused call is repeated in halves until the input is found.
fn each(
    backend: Arc<dyn Backend>,
    inputs: Vec<EncodeInput>,
) -> BoxFuture<'static, Result<Vec<std::result::Result<One, String>>>> {
    async move {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        match backend.encode_with_heads(inputs.clone()).await {
            Ok(encoded) => {
                let dim = encoded.embeddings.dim.max(1);
                let vectors = encoded.embeddings.values.chunks(dim).map(<[f32]>::to_vec);
                let (expected, found) = (inputs.len(), vectors.len());
                if found != expected || encoded.annotations.len() != expected {
                    return Err(datafusion_error::miscounted("encode", expected, found));
                }
                Ok(vectors
                    .zip(encoded.annotations)
                    .map(|(vector, annotations)| Ok(One { vector, annotations }))
                    .collect())
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
