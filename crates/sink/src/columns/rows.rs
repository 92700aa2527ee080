//! Reads the rows of a table that have no value in a column.
//!
//! out: `chunk_schema(inputs)`, in the table's order
//!
//! The column of each fragment is read first; texts are read only for fragments with missing values. `execute` opens
//! the dataset at the version that the plan was made for.

use std::{fmt, sync::Arc};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Field, FieldRef, SchemaRef, UInt64Type},
};
use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{TryStreamExt, stream};
use lance::{Dataset, dataset::builder::DatasetBuilder, dataset::fragment::FileFragment};
use polylance_dataflow::operator::{fmt_operator, properties};
use polylance_schema::{
    HeadInputs, chunk_schema,
    columns::{ROW_ADDRESS, TEXT},
};

use super::missing::{Missing, missing_in_fragment};
use crate::{error::SinkError, operator, table::open};

/// Scans the rows of one version of a table that have no value in a column.
#[derive(Debug)]
pub struct TableRowsExec {
    uri: String,
    version: u64,
    column: String,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TableRowsExec {
    /// Opens the latest version of the table at `uri`. `inputs` names the columns that the head needs in addition to
    /// the text.
    ///
    /// # Errors
    /// [`SinkError::NoTable`]; [`SinkError::MissingColumn`] when the table has no text or lacks an input.
    pub async fn open(uri: &str, column: &str, inputs: &HeadInputs) -> Result<Self, SinkError> {
        let dataset = open::existing(uri).await?;
        let names = inputs.question_column.iter().chain(&inputs.choices_column);
        let inputs = names.map(|name| field(uri, &dataset, name)).collect::<Result<Vec<_>, _>>()?;
        field(uri, &dataset, TEXT)?;
        Ok(Self::new(uri.to_owned(), dataset.version_id(), column.to_owned(), chunk_schema(&inputs)))
    }

    fn new(uri: String, version: u64, column: String, schema: SchemaRef) -> Self {
        let properties = properties(schema);
        Self { uri, version, column, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

fn field(uri: &str, dataset: &Dataset, name: &str) -> Result<FieldRef, SinkError> {
    let found = dataset.schema().field(name).map(|field| Arc::new(Field::from(field)));
    found.ok_or_else(|| SinkError::MissingColumn { uri: uri.to_owned(), column: name.to_owned() })
}

impl DisplayAs for TableRowsExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uri, version, column, .. } = self;
        fmt_operator(format, f, "TableRowsExec", &[("uri", uri), ("version", version), ("without", column)])
    }
}

impl ExecutionPlan for TableRowsExec {
    operator::leaf_methods!("TableRowsExec");

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let scan = Scan { uri: self.uri.clone(), column: self.column.clone(), schema: self.schema() };
        let rows =
            stream::once(scan.open(self.version)).try_flatten().map_ok(move |batch| batch.record_output(&baseline));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

#[derive(Clone)]
struct Scan {
    uri: String,
    column: String,
    schema: SchemaRef,
}

impl Scan {
    async fn open(self, version: u64) -> Result<SendableRecordBatchStream> {
        let dataset = Box::pin(DatasetBuilder::from_uri(&self.uri).with_version(version).load())
            .await
            .map_err(SinkError::storage(&self.uri, "opening the table"))?;
        let schema = Arc::clone(&self.schema);
        let fragments = stream::iter(dataset.get_fragments().into_iter().map(Ok));
        let rows = fragments.and_then(move |fragment| self.clone().fragment(dataset.clone(), fragment)).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    async fn fragment(self, dataset: Dataset, fragment: FileFragment) -> Result<SendableRecordBatchStream> {
        let missing = missing_in_fragment(&self.uri, &dataset, &fragment, &self.column).await?;
        let schema = Arc::clone(&self.schema);
        if missing.is_empty() {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::empty())));
        }
        let reading = || SinkError::storage(&self.uri, "reading rows");
        let names: Vec<&str> =
            schema.fields().iter().map(|f| f.name().as_str()).filter(|n| *n != ROW_ADDRESS).collect();
        let mut scanner = dataset.scan();
        scanner.with_fragments(vec![fragment.metadata().clone()]).with_row_address();
        scanner.project(&names).map_err(reading())?;
        let batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
        let uri = self.uri.clone();
        let rows = batches
            .map_err(move |error| SinkError::storage(&uri, "reading rows")(error).into())
            .and_then(move |batch| std::future::ready(self.without_value(&batch, &missing)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// The rows of a batch without a value, with the columns in the order of the schema.
    fn without_value(&self, batch: &RecordBatch, missing: &Missing) -> Result<RecordBatch> {
        let columns = self.schema.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name()).cloned();
            column.ok_or_else(|| SinkError::rows(&self.uri, format!("a scan without {:?}", field.name())))
        });
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_, _>>()?)?;
        let Missing::Rows(_) = missing else { return Ok(batch) };
        let addresses = batch.column(0).as_primitive::<UInt64Type>();
        let lacks: BooleanArray =
            addresses.values().iter().map(|address| Some(missing.contains(*address as u32))).collect();
        Ok(filter_record_batch(&batch, &lacks)?)
    }
}
