//! Asks a head about the chunks of a table.
//!
//! in:  `chunk_schema(inputs)`, documents one after another
//! out: `annotated_schema(column)`: one row a chunk, in the order they came
//!
//! Chunks are gathered into windows of whole documents, so that what the borders of chunks cut is joined before it
//! leaves. A row that cannot be annotated gets an `_error` and no value. A few windows are in work at once.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Field, FieldRef, SchemaRef},
};
use async_stream::try_stream;
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{Stream, StreamExt, TryStreamExt};
use polylance_backend::{AnnotateInput, Annotator, AnnotatorHandle};
use polylance_schema::{
    HeadContract, HeadInputs, Stage, annotated_schema, chunk_schema,
    columns::{DOC_ID, ROW_ADDRESS, TEXT},
};

use super::operator;
use crate::{
    annotations::{
        column::{self as annotation, AnnotatedRow},
        locate::place,
    },
    batches::{self, column},
    datafusion_error,
    shutdown::Stop,
};

/// Windows in work at once.
const IN_FLIGHT: usize = 3;
/// Bytes of text that close a window: some seconds of a model's time, and enough for its batches.
const WINDOW_BYTES: usize = 128 << 10;
/// Rows that close a window, whatever their length.
const WINDOW_ROWS: usize = 4096;

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
        let beside: Vec<FieldRef> = schema.fields().iter().skip(5).map(Arc::clone).collect();
        operator::expect_schema("AnnotateExec", &schema, &chunk_schema(&beside))?;
        for (key, name, is_right) in needs(&contract.inputs) {
            let found = beside.iter().find(|field| field.name() == name);
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

/// The columns that the inputs name, and what type each must have.
fn needs(inputs: &HeadInputs) -> impl Iterator<Item = (&'static str, &String, IsRight)> {
    let text: IsRight = |found| *found == DataType::Utf8;
    let list: IsRight = |found| matches!(found, DataType::List(item) if *item.data_type() == DataType::Utf8);
    let question = inputs.question_column.iter().map(move |name| ("question_column", name, text));
    question.chain(inputs.choices_column.iter().map(move |name| ("choices_column", name, list)))
}

impl DisplayAs for AnnotateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnnotateExec: column={}, task={}", self.column.name(), self.contract.spec.name())
    }
}

impl ExecutionPlan for AnnotateExec {
    fn name(&self) -> &'static str {
        "AnnotateExec"
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
        Ok(Arc::new(Self::try_new(input, &self.column)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let handle = context.session_config().get_extension::<AnnotatorHandle>();
        let missing = || DataFusionError::Plan("the session has no annotator: set an `AnnotatorHandle`".into());
        let annotator = Arc::clone(&handle.ok_or_else(missing)?.0);
        let (schema, contract) = (self.schema(), Arc::clone(&self.contract));
        let output = Arc::clone(&schema);
        let stop = Stop::of(&context);
        let batches = stop
            .before_it_begins(windows(self.input.execute(partition, context)?))
            .map(move |window| {
                let (annotator, contract, output) =
                    (Arc::clone(&annotator), Arc::clone(&contract), Arc::clone(&output));
                // An error waits for the windows before it.
                async move { annotated(annotator, window?, contract, output).await }
            })
            .buffered(IN_FLIGHT)
            .map_ok(move |batch| batch.record_output(&baseline));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stop.before_it_hurries(batches))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The rows of the input in batches of whole documents.
fn windows(mut input: SendableRecordBatchStream) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let schema = input.schema();
    try_stream! {
        let (mut parts, mut bytes, mut rows): (Vec<RecordBatch>, usize, usize) = (Vec::new(), 0, 0);
        let mut document: Option<String> = None;
        while let Some(batch) = input.try_next().await? {
            let (ids, texts) = (column(&batch, DOC_ID)?.as_string::<i32>(), column(&batch, TEXT)?.as_string::<i32>());
            let mut start = 0;
            for row in 0..batch.num_rows() {
                let next = ids.value(row);
                if document.as_deref() != Some(next) {
                    if bytes >= WINDOW_BYTES || rows >= WINDOW_ROWS {
                        parts.push(batch.slice(start, row - start));
                        yield concat_batches(&schema, &parts)?;
                        parts.clear();
                        (start, bytes, rows) = (row, 0, 0);
                    }
                    document = Some(next.to_owned());
                }
                bytes += texts.value_length(row) as usize;
                rows += 1;
            }
            parts.push(batch.slice(start, batch.num_rows() - start));
        }
        if rows > 0 {
            yield concat_batches(&schema, &parts)?;
        }
    }
}

async fn annotated(
    annotator: Arc<dyn Annotator>,
    batch: RecordBatch,
    contract: Arc<HeadContract>,
    schema: SchemaRef,
) -> Result<RecordBatch> {
    let inputs = Inputs::new(&batch, &contract.inputs)?;
    let (mut good, mut asked) = (Vec::new(), Vec::new());
    let mut messages = vec![None; batch.num_rows()];
    let mut rows = vec![AnnotatedRow::default(); batch.num_rows()];
    for row in 0..batch.num_rows() {
        match inputs.row(row) {
            Ok(input) => {
                rows[row].choices.clone_from(&input.choices);
                good.push(row);
                asked.push(input);
            }
            Err(message) => messages[row] = Some(message),
        }
    }
    let answers = annotator.annotate(asked).await.map_err(datafusion_error::backend)?;
    if answers.len() != good.len() {
        return Err(datafusion_error::miscounted("annotate", good.len(), answers.len()));
    }
    for (row, answer) in good.into_iter().zip(answers) {
        match answer {
            Ok(annotation) => rows[row].annotation = Some(annotation),
            Err(message) => messages[row] = Some(message),
        }
    }
    place(&batch, &contract.spec, &mut rows)?;
    let errors: ArrayRef = Arc::new(batches::errors(Stage::Annotate, &messages));
    let values = annotation::column(&contract.spec, &rows)?;
    let passed = |name| Ok::<_, DataFusionError>(Arc::clone(column(&batch, name)?));
    let columns = vec![passed(ROW_ADDRESS)?, passed(DOC_ID)?, passed(TEXT)?, values, errors];
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// What the head is given of each row.
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
