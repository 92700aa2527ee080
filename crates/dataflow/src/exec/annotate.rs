//! Runs a head over the chunks of a table.
//!
//! in:  `chunk_schema(inputs)`, documents one after another
//! out: `annotated_schema(column)`: one row per chunk, in their order
//!
//! Chunks are gathered into windows of whole documents, so that spans are merged over the borders of chunks before the
//! window is returned. A row that cannot be annotated gets an `_error` and no value. A few windows are in work at the
//! same time.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, FieldRef, SchemaRef},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, Statistics,
        execution_plan::CardinalityEffect,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt};
use polylance_backend::{AnnotateInput, Annotator, AnnotatorHandle};
use polylance_schema::{
    HeadContract, HeadInputs, Stage, annotated_schema, chunk_schema,
    columns::{DOC_ID, ROW_ADDRESS, TEXT},
};

use super::{
    operator,
    timing::{OpenCalls, time_waits, time_work},
    window::{WAIT_DEVICE, WINDOWS_IN_FLIGHT, WindowLimit, windows},
};
use crate::{
    annotations::{
        column::{self as annotation, AnnotatedRow},
        locate::locate,
    },
    batches::{self, column},
    datafusion_error,
    shutdown::ShutdownSignal,
    single_child_plan,
};

/// When a window is full: after some seconds of a model's time, which is enough for its batches.
const WINDOW: WindowLimit = WindowLimit { weight: MAX_WINDOW_BYTES, rows: MAX_WINDOW_ROWS, whole_documents: true };
/// The bytes of text that close a window.
const MAX_WINDOW_BYTES: usize = 128 << 10;
/// The number of rows that closes a window, whatever their length.
const MAX_WINDOW_ROWS: usize = 4096;

/// Fills one column.
#[derive(Debug)]
pub struct AnnotateExec {
    column: Field,
    contract: Arc<HeadContract>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AnnotateExec {
    /// For a column that carries its [`HeadContract`], over `chunk_schema(inputs)`.
    ///
    /// # Errors
    /// When the column has no contract, or the input has other columns than the task needs.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, column: &Field) -> Result<Self> {
        let contract = HeadContract::of(column).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let contract =
            contract.ok_or_else(|| DataFusionError::Plan(format!("column {:?} is no annotation", column.name())))?;
        let schema = input.schema();
        let own = chunk_schema(&[]);
        let is_input = |field: &&FieldRef| own.fields().find(field.name()).is_none();
        let inputs: Vec<FieldRef> = schema.fields().iter().filter(is_input).map(Arc::clone).collect();
        operator::expect_schema("AnnotateExec", &schema, &chunk_schema(&inputs))?;
        for (key, name, is_right) in input_columns(&contract.inputs) {
            let found = inputs.iter().find(|field| field.name() == name);
            if !found.is_some_and(|field| is_right(field.data_type())) {
                let found = found.map_or_else(|| "absent".to_owned(), |field| field.data_type().to_string());
                return Err(DataFusionError::Plan(format!("{key} {name:?} is {found}")));
            }
        }
        let properties = operator::properties(annotated_schema(column));
        Ok(Self {
            column: column.clone(),
            contract: Arc::new(contract),
            input,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

type IsRight = fn(&DataType) -> bool;

/// The columns that the inputs name: the key that names each, its name and a check of its type.
fn input_columns(inputs: &HeadInputs) -> impl Iterator<Item = (&'static str, &String, IsRight)> {
    let text: IsRight = |found| *found == DataType::Utf8;
    let list: IsRight = |found| matches!(found, DataType::List(item) if *item.data_type() == DataType::Utf8);
    let question = inputs.question_column.iter().map(move |name| ("question_column", name, text));
    question.chain(inputs.choices_column.iter().map(move |name| ("choices_column", name, list)))
}

impl DisplayAs for AnnotateExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (column, task) = (self.column.name(), self.contract.spec.name());
        operator::fmt_operator(format, f, "AnnotateExec", &[("column", column), ("task", &task)])
    }
}

impl ExecutionPlan for AnnotateExec {
    single_child_plan!(AnnotateExec, |this, input| Self::try_new(input, &this.column)?);

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let wait_device = MetricBuilder::new(&self.metrics).subset_time(WAIT_DEVICE, partition);
        let (work, calls) = (baseline.elapsed_compute().clone(), OpenCalls::default());
        let handle = context.session_config().get_extension::<AnnotatorHandle>();
        let missing = || DataFusionError::Plan("the session has no annotator: set an `AnnotatorHandle`".into());
        let head = Head {
            annotator: Arc::clone(&handle.ok_or_else(missing)?.0),
            contract: Arc::clone(&self.contract),
            schema: self.schema(),
            calls: calls.clone(),
        };
        let shutdown = ShutdownSignal::of(&context);
        let windows = windows(self.input.execute(partition, context)?, WINDOW, text_bytes, work.clone());
        let batches = shutdown
            .take_until_requested(windows)
            .map(move |window| {
                let head = head.clone();
                // An error waits for the windows before it.
                time_work(async move { head.annotate(window?).await }, work.clone())
            })
            .buffered(WINDOWS_IN_FLIGHT)
            .map_ok(move |batch| batch.record_output(&baseline));
        let batches = shutdown.take_until_forced(batches).boxed();
        let batches = time_waits(batches, wait_device, move || calls.is_any());
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let rows = self.input.partition_statistics(partition)?.num_rows;
        Ok(operator::row_statistics(&self.schema(), rows))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// The bytes of each row's text.
fn text_bytes(batch: &RecordBatch) -> Result<Vec<usize>> {
    let texts = column(batch, TEXT)?.as_string::<i32>();
    Ok((0..batch.num_rows()).map(|row| texts.value_length(row) as usize).collect())
}

/// What a stream of the operator annotates with.
#[derive(Debug, Clone)]
struct Head {
    annotator: Arc<dyn Annotator>,
    contract: Arc<HeadContract>,
    schema: SchemaRef,
    calls: OpenCalls,
}

impl Head {
    async fn annotate(self, batch: RecordBatch) -> Result<RecordBatch> {
        let inputs = Inputs::new(&batch, &self.contract.inputs)?;
        let (mut good, mut good_inputs) = (Vec::new(), Vec::new());
        let mut messages = vec![None; batch.num_rows()];
        let mut rows = vec![AnnotatedRow::default(); batch.num_rows()];
        for row in 0..batch.num_rows() {
            match inputs.row(row) {
                Ok(input) => {
                    rows[row].choices.clone_from(&input.choices);
                    good.push(row);
                    good_inputs.push(input);
                }
                Err(message) => messages[row] = Some(message),
            }
        }
        let call = self.annotator.annotate(good_inputs);
        let annotations = self.calls.track(call).await.map_err(datafusion_error::backend)?;
        if annotations.len() != good.len() {
            return Err(datafusion_error::miscounted("annotate", good.len(), annotations.len()));
        }
        for (row, annotated) in good.into_iter().zip(annotations) {
            match annotated {
                Ok(annotation) => rows[row].annotation = Some(annotation),
                Err(message) => messages[row] = Some(message),
            }
        }
        locate(&batch, &self.contract.spec, &mut rows)?;
        let errors: ArrayRef = Arc::new(batches::errors(Stage::Annotate, &messages));
        let values = annotation::column(&self.contract.spec, &rows)?;
        let kept = |name| Ok::<_, DataFusionError>(Arc::clone(column(&batch, name)?));
        let columns = vec![kept(ROW_ADDRESS)?, kept(DOC_ID)?, kept(TEXT)?, values, errors];
        Ok(RecordBatch::try_new(self.schema, columns)?)
    }
}

/// The columns of a window that the head reads.
struct Inputs<'b> {
    text: &'b StringArray,
    fixed: &'b HeadInputs,
    question: Option<(&'b str, &'b StringArray)>,
    choices: Option<(&'b str, &'b ArrayRef)>,
}

impl<'b> Inputs<'b> {
    fn new(batch: &'b RecordBatch, inputs: &'b HeadInputs) -> Result<Self> {
        let question = match &inputs.question_column {
            Some(name) => Some((name.as_str(), column(batch, name)?.as_string::<i32>())),
            None => None,
        };
        let choices = match &inputs.choices_column {
            Some(name) => Some((name.as_str(), column(batch, name)?)),
            None => None,
        };
        Ok(Self { text: column(batch, TEXT)?.as_string(), fixed: inputs, question, choices })
    }

    /// The row's input, or why it has none.
    fn row(&self, row: usize) -> Result<AnnotateInput, String> {
        let question = match self.question {
            Some((name, column)) if column.is_null(row) => {
                return Err(format!("the question is null: column {name:?}"));
            }
            Some((_, column)) => Some(column.value(row).to_owned()),
            None => self.fixed.question.clone(),
        };
        let choices = match self.choices {
            Some((name, column)) if column.is_null(row) => {
                return Err(format!("the choices are null: column {name:?}"));
            }
            Some((_, column)) => {
                let list = column.as_list::<i32>().value(row);
                list.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
            }
            None => self.fixed.choices.clone(),
        };
        Ok(AnnotateInput { text: self.text.value(row).to_owned(), question, choices })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::UInt64Array;
    use datafusion::{common::stats::Precision, prelude::SessionConfig};
    use polylance_schema::{Aggregation, Scores, TaskSpec};
    use polylance_testkit::{FakeAnnotator, FakeBackend, fake_head_contract};

    use super::{
        super::testing::{PAUSE, SlowAnnotator, memory, messages, metric, rows, shown, texts},
        *,
    };

    /// A head of this task over chunks `(document, start, text)`.
    fn annotate(spec: TaskSpec, chunks: &[(&str, u64, &str)]) -> AnnotateExec {
        let contract = fake_head_contract(spec);
        let ends = chunks.iter().map(|chunk| chunk.1 + chunk.2.chars().count() as u64);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_iter_values(0..chunks.len() as u64)),
            Arc::new(StringArray::from_iter_values(chunks.iter().map(|chunk| chunk.0))),
            Arc::new(UInt64Array::from_iter_values(chunks.iter().map(|chunk| chunk.1))),
            Arc::new(UInt64Array::from_iter_values(ends)),
            Arc::new(StringArray::from_iter_values(chunks.iter().map(|chunk| chunk.2))),
        ];
        let batch = RecordBatch::try_new(chunk_schema(&[]), columns).unwrap();
        let column = contract.field("found").unwrap();
        AnnotateExec::try_new(memory(chunk_schema(&[]), &[batch]), &column).unwrap()
    }

    fn classify() -> TaskSpec {
        TaskSpec::Classify { scores: Scores::Best }
    }

    fn session(annotator: Arc<dyn Annotator>) -> Arc<TaskContext> {
        let config = SessionConfig::new().with_extension(Arc::new(AnnotatorHandle(annotator)));
        Arc::new(TaskContext::default().with_session_config(config))
    }

    #[tokio::test]
    async fn a_row_has_a_value_or_an_error() {
        let refused = format!("a text with {}", FakeBackend::REFUSED);
        let chunks = [("a", 0, "short"), ("b", 0, refused.as_str()), ("c", 0, "also short")];
        let plan: Arc<dyn ExecutionPlan> = Arc::new(annotate(classify(), &chunks));
        let found = rows(&plan, session(Arc::new(FakeAnnotator::new(classify())))).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "b", "c"]);
        let values: Vec<bool> = (0..3).map(|row| found["found"].is_valid(row)).collect();
        let refused: Vec<bool> = messages(&found).iter().map(Option::is_some).collect();
        assert_eq!((values, refused), (vec![true, false, true], vec![false, true, false]));
        assert!(metric(&plan, "elapsed_compute") > 0 && metric(&plan, "output_rows") == 3);
    }

    #[tokio::test]
    async fn spans_are_merged_over_the_border_of_two_chunks() {
        let names = TaskSpec::Ner { aggregation: Aggregation::Simple };
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(annotate(names.clone(), &[("a", 0, "by Ada"), ("a", 7, "Lovelace it was")]));
        let found = rows(&plan, session(Arc::new(FakeAnnotator::new(names)))).await.unwrap();
        let spans = found["found"].as_list::<i32>();
        assert_eq!((spans.value(0).len(), spans.value(1).len()), (1, 0));
        let text = spans.value(0);
        let text = text.as_struct().column_by_name("text").unwrap().as_string::<i32>().value(0);
        assert_eq!(text, "Ada Lovelace");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_time_for_the_head_is_measured_as_a_wait() {
        let plan: Arc<dyn ExecutionPlan> = Arc::new(annotate(classify(), &[("a", 0, "short")]));
        let head = SlowAnnotator(FakeAnnotator::new(classify()));
        rows(&plan, session(Arc::new(head))).await.unwrap();
        assert!(metric(&plan, WAIT_DEVICE) as u128 > PAUSE.as_nanos() / 2);
        assert!(metric(&plan, "elapsed_compute") > 0);
    }

    #[test]
    fn rows_are_as_many_as_in_the_input() {
        let annotate = annotate(classify(), &[("a", 0, "one"), ("b", 0, "two")]);
        assert_eq!(annotate.partition_statistics(None).unwrap().num_rows, Precision::Exact(2));
        let (line, tree) = shown(&annotate);
        assert_eq!(
            (line.as_str(), tree.as_str()),
            ("AnnotateExec: column=found, task=classify", "column=found\ntask=classify\n")
        );
    }
}
