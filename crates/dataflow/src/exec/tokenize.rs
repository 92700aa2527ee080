//! Cuts documents into chunks and tokenizes them on the backend's threads.
//!
//! in:  `source_schema(keep)`, one row per document
//! out: `tokenized_schema(keep)`, one row per chunk; a refused row stays one row
//!
//! Rows keep their order. A few batches are tokenized at the same time.

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
        execution_plan::CardinalityEffect,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use polylance_backend::{Backend, Chunk, TokenizeSpec};
use polylance_schema::{
    Stage,
    columns::{CHAR_END, CHAR_START, CHUNK, ERROR, INPUT_IDS, N_TOKENS, TEXT, TRUNCATED},
    kept_fields, source_schema, tokenized_schema,
};

use super::{
    bisect::{Call, OnOutOfMemory, Outcome, call_or_bisect},
    operator,
    timing::{OpenCalls, time_waits, time_work},
};
use crate::{
    batches::{column, with_errors},
    datafusion_error, single_child_plan,
};

/// Name of the metric with the time in which nothing but the tokenizers could make the stream go on.
const WAIT_TOKENIZERS: &str = "wait_tokenizers";
/// Batches that are tokenized at the same time.
const BATCHES_IN_FLIGHT: usize = 4;
/// The largest number of chunks in an output batch.
const MAX_OUTPUT_ROWS: usize = 4096;

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
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TokenizeSpec { prefix, chunking } = &self.spec;
        match format {
            DisplayFormatType::TreeRender => writeln!(f, "prefix={prefix:?}\nchunking={chunking}"),
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "TokenizeExec: prefix={prefix:?}, {chunking}")
            }
        }
    }
}

impl ExecutionPlan for TokenizeExec {
    single_child_plan!(TokenizeExec, |this, input| Self::try_new(input, this.spec.clone())?);

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let wait_tokenizers = MetricBuilder::new(&self.metrics).subset_time(WAIT_TOKENIZERS, partition);
        let (work, calls) = (baseline.elapsed_compute().clone(), OpenCalls::default());
        let tokenizer = Tokenizer {
            backend: operator::backend(&context)?,
            spec: self.spec.clone(),
            schema: self.schema(),
            calls: calls.clone(),
        };
        let batches = self
            .input
            .execute(partition, context)?
            .map_ok(move |batch| time_work(tokenizer.clone().tokenize(batch), work.clone()))
            .try_buffered(BATCHES_IN_FLIGHT)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
            .map_ok(move |batch| batch.record_output(&baseline));
        let batches = time_waits(batches.boxed(), wait_tokenizers, move || calls.is_any());
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::GreaterEqual
    }
}

/// What a stream of the operator tokenizes with.
#[derive(Debug, Clone)]
struct Tokenizer {
    backend: Arc<dyn Backend>,
    spec: TokenizeSpec,
    schema: SchemaRef,
    calls: OpenCalls,
}

impl Tokenizer {
    async fn tokenize(self, batch: RecordBatch) -> Result<Vec<RecordBatch>> {
        let text = column(&batch, TEXT)?.as_string::<i32>();
        let refused = column(&batch, ERROR)?;
        let good: Vec<usize> = (0..batch.num_rows()).filter(|&row| refused.is_null(row)).collect();
        let texts: Vec<String> = good.iter().map(|&row| text.value(row).to_owned()).collect();
        let mut chunks = vec![Vec::new(); batch.num_rows()];
        let mut messages = vec![None; batch.num_rows()];
        let outcomes = self.calls.track(call_or_bisect(self.call(), texts, OnOutOfMemory::Fail)).await?;
        for (row, outcome) in good.into_iter().zip(outcomes) {
            match outcome.and_then(not_empty) {
                Ok(row_chunks) => chunks[row] = row_chunks,
                Err(message) => messages[row] = Some(message),
            }
        }
        let batch = with_errors(&batch, Stage::Tokenize, &messages)?;
        Ok(explode(&batch, &chunks, &self.schema)?)
    }

    /// Tokenizes texts: the chunks of each.
    fn call(&self) -> impl Fn(Vec<String>) -> Call<Vec<Chunk>> + Clone + Send + Sync + use<> {
        let (backend, spec) = (Arc::clone(&self.backend), self.spec.clone());
        move |texts| {
            let expected = texts.len();
            let chunks = backend.tokenize(texts, &spec);
            async move {
                match chunks.await {
                    Ok(chunks) if chunks.len() != expected => {
                        Err(datafusion_error::miscounted("tokenize", expected, chunks.len()))
                    }
                    answer => Ok(answer),
                }
            }
            .boxed()
        }
    }
}

/// The chunks of a text; a text without any is refused, so that each row becomes at least one.
fn not_empty(chunks: Vec<Chunk>) -> Outcome<Vec<Chunk>> {
    if chunks.is_empty() { Err("the text has no chunk".into()) } else { Ok(chunks) }
}

/// One row per chunk, in batches of at most [`MAX_OUTPUT_ROWS`].
fn explode(
    batch: &RecordBatch,
    chunks: &[Vec<Chunk>],
    schema: &SchemaRef,
) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    let rows: Vec<(usize, usize)> =
        (0..batch.num_rows()).flat_map(|row| (0..chunks[row].len().max(1)).map(move |chunk| (row, chunk))).collect();
    rows.chunks(MAX_OUTPUT_ROWS).map(|rows| part(batch, chunks, schema, rows)).collect()
}

/// A batch of the chunks `rows`, each the number of a row and of a chunk in it.
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

#[cfg(test)]
mod tests {
    use datafusion::common::stats::Precision;
    use polylance_schema::{Chunking, Cut, columns::DOC_ID};
    use polylance_testkit::FakeBackend;

    use super::{
        super::testing::{PAUSE, SlowBackend, documents, memory, messages, metric, rows, session, shown, texts},
        *,
    };

    fn tokenize(rows: &[(&str, &str)]) -> TokenizeExec {
        let chunking = Chunking::Split { max_tokens: 5, overlap: 0, cut: Cut::Word };
        let spec = TokenizeSpec { prefix: "query: ".into(), chunking };
        TokenizeExec::try_new(memory(source_schema(&[]), &[documents(rows)]), spec).unwrap()
    }

    #[tokio::test]
    async fn a_document_becomes_its_chunks_and_a_refused_one_stays_a_row() {
        let refused = format!("a text with {}", FakeBackend::REFUSED);
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(tokenize(&[("a", "one two three"), ("b", &refused), ("c", "four")]));
        let found = rows(&plan, session(Arc::new(FakeBackend::new(4)))).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "a", "b", "c"]);
        let refused: Vec<bool> = messages(&found).iter().map(Option::is_some).collect();
        assert_eq!(refused, [false, false, true, false]);
        let tokens: Vec<bool> = (0..4).map(|row| found[INPUT_IDS].is_valid(row)).collect();
        assert_eq!(tokens, [true, true, false, true]);
        assert!(metric(&plan, "elapsed_compute") > 0 && metric(&plan, "output_rows") == 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_time_for_the_tokenizers_is_measured_as_a_wait() {
        let plan: Arc<dyn ExecutionPlan> = Arc::new(tokenize(&[("a", "one")]));
        rows(&plan, session(Arc::new(SlowBackend(FakeBackend::new(4))))).await.unwrap();
        assert!(metric(&plan, WAIT_TOKENIZERS) as u128 > PAUSE.as_nanos() / 2);
        assert!(metric(&plan, "elapsed_compute") > 0);
    }

    #[test]
    fn the_number_of_chunks_is_not_known() {
        let tokenize = tokenize(&[("a", "one")]);
        assert_eq!(tokenize.partition_statistics(None).unwrap().num_rows, Precision::Absent);
        let (line, tree) = shown(&tokenize);
        assert!(line.starts_with("TokenizeExec: prefix=\"query: \", split at 5 tokens"), "{line}");
        assert!(tree.starts_with("prefix=\"query: \"\nchunking=split at 5 tokens"), "{tree}");
    }
}
