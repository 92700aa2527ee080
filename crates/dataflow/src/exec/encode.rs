//! Encodes chunks on the device pool.
//!
//! in:  `tokenized_schema(keep)`
//! out: `encoded_schema(keep, dim)`: `embedding` in the place of `_input_ids`, followed by a column for each fused head
//!
//! Rows keep their order. Batches are gathered into windows that are large enough to keep all devices busy, and a few
//! windows are in work at the same time, so that no device waits for another's remainder. With heads a window holds
//! whole documents, so that spans are merged over the borders of chunks before the window is returned. A chunk that a
//! head cannot annotate keeps its vector and has no value in the head's column.

use std::{
    fmt::{self, Display},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch},
    buffer::NullBuffer,
    datatypes::{DataType, Field, FieldRef, SchemaRef, UInt32Type},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, Statistics,
        execution_plan::CardinalityEffect,
        metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use polylance_backend::{Annotated, Backend, BackendInfo, EncodeInput};
use polylance_schema::{
    HeadContract, Stage, TaskSpec,
    columns::{INPUT_IDS, TEXT},
    encoded_schema, kept_fields, tokenized_schema, with_heads,
};

use super::{
    bisect::{Call, OnOutOfMemory, call_or_bisect},
    operator,
    timing::{OpenCalls, time_waits, time_work},
    window::{WAIT_DEVICE, WINDOWS_IN_FLIGHT, WindowLimit, windows},
};
use crate::{
    annotations::{
        column::{self as annotation, AnnotatedRow},
        locate::locate,
    },
    batches::{column, with_errors},
    datafusion_error,
    shutdown::ShutdownSignal,
    single_child_plan,
};

/// Name of the metric with the tokens encoded so far.
pub(crate) const TOKENS: &str = "tokens";
/// The number of rows that closes a window, whatever their lengths.
const MAX_WINDOW_ROWS: usize = 8192;

/// Encodes chunks.
#[derive(Debug)]
pub struct EncodeExec {
    shape: Shape,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// The columns of the output, and the size of a window.
#[derive(Debug, Clone)]
struct Shape {
    dim: usize,
    window_tokens: usize,
    /// Columns with their contracts.
    heads: Vec<FieldRef>,
    /// The task of each head.
    tasks: Vec<TaskSpec>,
}

impl EncodeExec {
    /// Over `tokenized_schema(keep)`, for a backend of these dimensions whose heads fill `heads`, columns that carry
    /// their [`HeadContract`].
    ///
    /// # Errors
    /// When the input has another schema, or a column has no contract.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, info: &BackendInfo, heads: &[FieldRef]) -> Result<Self> {
        let tasks = heads.iter().map(|column| task(column)).collect::<Result<_>>()?;
        let shape = Shape { dim: info.dim, window_tokens: info.window_tokens, heads: heads.to_vec(), tasks };
        Self::with_shape(input, shape)
    }

    fn with_shape(input: Arc<dyn ExecutionPlan>, shape: Shape) -> Result<Self> {
        let schema = input.schema();
        let keep = kept_fields(&schema);
        operator::expect_schema("EncodeExec", &schema, &tokenized_schema(keep))?;
        let properties = operator::properties(with_heads(&encoded_schema(keep, shape.dim), &shape.heads));
        Ok(Self { shape, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

/// The task of the head of a column.
fn task(column: &Field) -> Result<TaskSpec> {
    let contract = HeadContract::of(column).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let missing = || DataFusionError::Plan(format!("column {:?} is no annotation", column.name()));
    Ok(contract.ok_or_else(missing)?.spec)
}

impl DisplayAs for EncodeExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { dim, window_tokens, heads, .. } = &self.shape;
        let names = heads.iter().map(|head| head.name().as_str()).collect::<Vec<_>>().join(",");
        let mut fields: Vec<(&str, &dyn Display)> = vec![("dim", dim), ("window_tokens", window_tokens)];
        if !heads.is_empty() {
            fields.push(("heads", &names));
        }
        operator::fmt_operator(format, f, "EncodeExec", &fields)
    }
}

impl ExecutionPlan for EncodeExec {
    single_child_plan!(EncodeExec, |this, input| Self::with_shape(input, this.shape.clone())?);

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let wait_device = MetricBuilder::new(&self.metrics).subset_time(WAIT_DEVICE, partition);
        let tokens = MetricBuilder::new(&self.metrics).counter(TOKENS, partition);
        let (work, calls) = (baseline.elapsed_compute().clone(), OpenCalls::default());
        let (backend, schema, shape) = (operator::backend(&context)?, self.schema(), Arc::new(self.shape.clone()));
        if backend.heads() != shape.tasks {
            let (needed, found) = (shape.tasks.len(), backend.heads().len());
            let message = format!("the plan needs {needed} heads, the backend has {found} or different ones");
            return Err(DataFusionError::Plan(message));
        }
        let limit = shape.window_limit();
        let encoder = Encoder { backend, shape, schema: Arc::clone(&schema), tokens, calls: calls.clone() };
        let shutdown = ShutdownSignal::of(&context);
        let windows = windows(self.input.execute(partition, context)?, limit, token_counts, work.clone());
        let batches = shutdown
            .take_until_requested(windows)
            .map(move |window| {
                let encoder = encoder.clone();
                // An error waits for the windows before it.
                time_work(async move { encoder.encode(window?).await }, work.clone())
            })
            .buffered(WINDOWS_IN_FLIGHT)
            .map_ok(move |batch| batch.record_output(&baseline));
        let batches = shutdown.take_until_forced(batches).boxed();
        let batches = time_waits(batches, wait_device, move || calls.is_any());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let rows = self.input.partition_statistics(partition)?.num_rows;
        Ok(operator::row_statistics(&self.schema(), rows))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

impl Shape {
    fn window_limit(&self) -> WindowLimit {
        WindowLimit { weight: self.window_tokens, rows: MAX_WINDOW_ROWS, whole_documents: !self.heads.is_empty() }
    }
}

/// The number of tokens of each row.
fn token_counts(batch: &RecordBatch) -> Result<Vec<usize>> {
    let ids = column(batch, INPUT_IDS)?.as_list::<i32>();
    Ok((0..batch.num_rows()).map(|row| ids.value_length(row) as usize).collect())
}

/// One input's vector, and what each head returned for it.
struct EncodedRow {
    vector: Vec<f32>,
    annotations: Vec<Annotated>,
}

/// What a stream of the operator encodes with.
#[derive(Debug, Clone)]
struct Encoder {
    backend: Arc<dyn Backend>,
    shape: Arc<Shape>,
    schema: SchemaRef,
    tokens: Count,
    calls: OpenCalls,
}

impl Encoder {
    async fn encode(self, batch: RecordBatch) -> Result<RecordBatch> {
        let at = batch.schema_ref().index_of(INPUT_IDS)?;
        let (ids, texts) = (batch.column(at).as_list::<i32>(), column(&batch, TEXT)?.as_string::<i32>());
        let good: Vec<usize> = (0..batch.num_rows()).filter(|&row| ids.is_valid(row)).collect();
        let input = |&row: &usize| EncodeInput {
            input_ids: ids.value(row).as_primitive::<UInt32Type>().values().to_vec(),
            text: if self.shape.heads.is_empty() { String::new() } else { texts.value(row).to_owned() },
        };
        let inputs: Vec<EncodeInput> = good.iter().map(input).collect();
        let tokens: usize = inputs.iter().map(|input| input.input_ids.len()).sum();
        // What does not fit into a device's memory in one call may fit in two.
        let outcomes = self.calls.track(call_or_bisect(self.call(), inputs, OnOutOfMemory::Bisect)).await?;
        self.tokens.add(tokens);

        let dim = self.shape.dim;
        let mut values = vec![0.0; batch.num_rows() * dim];
        let mut valid = vec![false; batch.num_rows()];
        let mut messages = vec![None; batch.num_rows()];
        let mut annotations = vec![vec![AnnotatedRow::default(); batch.num_rows()]; self.shape.heads.len()];
        for (row, outcome) in good.into_iter().zip(outcomes) {
            match outcome {
                Ok(encoded) if encoded.vector.len() == dim => {
                    values[row * dim..][..dim].copy_from_slice(&encoded.vector);
                    valid[row] = true;
                    for (rows, annotation) in annotations.iter_mut().zip(encoded.annotations) {
                        rows[row].annotation = annotation.ok();
                    }
                }
                Ok(EncodedRow { vector, .. }) => {
                    messages[row] = Some(format!("the device returned {} dimensions, expected {dim}", vector.len()));
                }
                Err(message) => messages[row] = Some(message),
            }
        }
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let values: ArrayRef = Arc::new(Float32Array::from(values));
        let embedding = FixedSizeListArray::try_new(item, dim as i32, values, Some(NullBuffer::from(valid)))?;
        let batch = with_errors(&batch, Stage::Encode, &messages)?;
        let mut columns = batch.columns().to_vec();
        columns[at] = Arc::new(embedding);
        for (task, mut rows) in self.shape.tasks.iter().zip(annotations) {
            locate(&batch, task, &mut rows)?;
            columns.push(annotation::column(task, &rows)?);
        }
        Ok(RecordBatch::try_new(self.schema, columns)?)
    }

    /// Encodes inputs: the vector of each, and what the heads return for it.
    fn call(&self) -> impl Fn(Vec<EncodeInput>) -> Call<EncodedRow> + Clone + Send + Sync + use<> {
        let backend = Arc::clone(&self.backend);
        move |inputs| {
            let expected = inputs.len();
            let encoded = backend.encode_with_heads(inputs);
            async move {
                let encoded = match encoded.await {
                    Ok(encoded) => encoded,
                    Err(error) => return Ok(Err(error)),
                };
                let dim = encoded.embeddings.dim.max(1);
                let vectors = encoded.embeddings.values.chunks(dim).map(<[f32]>::to_vec);
                for found in [vectors.len(), encoded.annotations.len()] {
                    if found != expected {
                        return Err(datafusion_error::miscounted("encode", expected, found));
                    }
                }
                let rows = vectors.zip(encoded.annotations);
                Ok(Ok(rows.map(|(vector, annotations)| EncodedRow { vector, annotations }).collect()))
            }
            .boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::compute::concat_batches;
    use datafusion::common::stats::Precision;
    use polylance_backend::TokenizeSpec;
    use polylance_schema::{
        Chunking, Cut,
        columns::{DOC_ID, EMBEDDING},
        source_schema,
    };
    use polylance_testkit::FakeBackend;

    use super::{
        super::{
            testing::{PAUSE, SlowBackend, documents, memory, messages, metric, rows, session, shown, texts},
            tokenize::TokenizeExec,
        },
        *,
    };

    const DIM: usize = 4;

    /// Chunks of these documents, of at most two words each.
    async fn chunks(documents_of: &[(&str, &str)]) -> RecordBatch {
        let chunking = Chunking::Split { max_tokens: 4, overlap: 0, cut: Cut::Word };
        let spec = TokenizeSpec { prefix: String::new(), chunking };
        let input = memory(source_schema(&[]), &[documents(documents_of)]);
        let plan: Arc<dyn ExecutionPlan> = Arc::new(TokenizeExec::try_new(input, spec).unwrap());
        rows(&plan, session(Arc::new(FakeBackend::new(DIM)))).await.unwrap()
    }

    fn encode(chunks: RecordBatch) -> EncodeExec {
        let backend = FakeBackend::new(DIM);
        EncodeExec::try_new(memory(tokenized_schema(&[]), &[chunks]), backend.info(), &[]).unwrap()
    }

    #[tokio::test]
    async fn each_chunk_has_a_vector_and_a_refused_row_has_none() {
        let refused = format!("a text with {}", FakeBackend::REFUSED);
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(encode(chunks(&[("a", "one two three"), ("b", &refused), ("c", "four")]).await));
        let found = rows(&plan, session(Arc::new(FakeBackend::new(DIM)))).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "a", "b", "c"]);
        let vectors: Vec<bool> = (0..4).map(|row| found[EMBEDDING].is_valid(row)).collect();
        assert_eq!(vectors, [true, true, false, true]);
        assert!(messages(&found)[2].is_some());
        assert_eq!((metric(&plan, TOKENS), metric(&plan, "output_rows")), (4 + 3 + 3, 4));
        assert!(metric(&plan, "elapsed_compute") > 0);
    }

    #[tokio::test]
    async fn an_input_that_the_device_refuses_costs_its_row_alone() {
        let good = chunks(&[("a", "one"), ("b", "two")]).await;
        let long = "word ".repeat(600);
        let spec = TokenizeSpec { prefix: String::new(), chunking: Chunking::Truncate { max_tokens: 600 } };
        let input = memory(source_schema(&[]), &[documents(&[("long", &long)])]);
        let plan: Arc<dyn ExecutionPlan> = Arc::new(TokenizeExec::try_new(input, spec).unwrap());
        let long = rows(&plan, session(Arc::new(FakeBackend::new(DIM)))).await.unwrap();
        let both = concat_batches(&good.schema(), [&good.slice(0, 1), &long, &good.slice(1, 1)]).unwrap();
        let plan: Arc<dyn ExecutionPlan> = Arc::new(encode(both));
        let found = rows(&plan, session(Arc::new(FakeBackend::new(DIM)))).await.unwrap();
        let refused: Vec<bool> = messages(&found).iter().map(Option::is_some).collect();
        assert_eq!((texts(&found, DOC_ID).join(" "), refused), ("a long b".to_owned(), vec![false, true, false]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_time_for_the_devices_is_measured_as_a_wait() {
        let plan: Arc<dyn ExecutionPlan> = Arc::new(encode(chunks(&[("a", "one")]).await));
        rows(&plan, session(Arc::new(SlowBackend(FakeBackend::new(DIM))))).await.unwrap();
        assert!(metric(&plan, WAIT_DEVICE) as u128 > PAUSE.as_nanos() / 2);
        assert!(metric(&plan, "elapsed_compute") > 0);
    }

    #[tokio::test]
    async fn rows_are_as_many_as_in_the_input() {
        let encode = encode(chunks(&[("a", "one two three"), ("b", "four")]).await);
        assert_eq!(encode.partition_statistics(None).unwrap().num_rows, Precision::Exact(3));
        let (line, tree) = shown(&encode);
        assert_eq!(line, "EncodeExec: dim=4, window_tokens=8192");
        assert_eq!(tree, "dim=4\nwindow_tokens=8192\n");
    }
}
