//! Reads a table and adds its address to the errors of the store and of damaged files.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{Statistics, internal_err},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, stream::RecordBatchStreamAdapter},
};
use futures::TryStreamExt;

use crate::SearchError;

/// in and out: the rows of a table, as its own plan reads them.
#[derive(Debug)]
pub(super) struct NamedReadExec {
    /// The table's address.
    uri: Arc<str>,
    rows: Arc<dyn ExecutionPlan>,
}

impl NamedReadExec {
    pub(super) fn new(uri: Arc<str>, rows: Arc<dyn ExecutionPlan>) -> Self {
        Self { uri, rows }
    }
}

impl DisplayAs for NamedReadExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may be secret to the readers of a plan.
        write!(f, "NamedReadExec")
    }
}

impl ExecutionPlan for NamedReadExec {
    fn name(&self) -> &'static str {
        "NamedReadExec"
    }

    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.rows.partition_statistics(partition)
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([rows]) => Ok(Arc::new(Self::new(Arc::clone(&self.uri), rows))),
            Err(other) => internal_err!("NamedReadExec has one child, not {}", other.len()),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let uri = Arc::clone(&self.uri);
        let rows = self.rows.execute(partition, context)?.map_err(move |error| with_address(&uri, error));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// An error of the store or of a file, with the table's address; any other unchanged.
fn with_address(uri: &str, error: DataFusionError) -> DataFusionError {
    use lance::Error;
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(source) if matches!(*source, Error::IO { .. } | Error::CorruptFile { .. } | Error::NotFound { .. }) => {
                let named = SearchError::Storage { uri: uri.to_owned(), action: "reading", source: Arc::from(source) };
                DataFusionError::External(Box::new(named))
            }
            Ok(source) => DataFusionError::External(source),
            Err(inner) => DataFusionError::External(inner),
        },
        other => other,
    }
}
