//! Reads the files of a source, one after another.
//!
//! in:  nothing
//! out: `source_schema(keep)`: one row a document, in the order of the files and of their rows
//!
//! A row that no model can embed has its `_error` set. A file that cannot be read, or breaks off, is one such row
//! without an id. Of a file whose rows the table has, only the ids are filled. While a file is read, the next one is being opened.

use std::{fmt, sync::Arc};

use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;
use polylance_schema::{ContentRule, source_schema};

use super::operator;
use crate::source::{open::Source, rows::file_rows};

/// Name of the metric with the bytes read so far.
pub(crate) const BYTES_READ: &str = "bytes_read";
/// Scans a source.
#[derive(Debug)]
pub struct SourceScanExec {
    source: Source,
    rule: ContentRule,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SourceScanExec {
    /// A scan of a source that was opened, and so checked.
    pub fn new(source: Source) -> Self {
        let properties = operator::properties(source_schema(source.keep_fields()));
        Self { source, rule: ContentRule::default(), properties, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// Makes the content hashes by the rule of a table.
    #[must_use]
    pub fn with_rule(self, rule: ContentRule) -> Self {
        Self { rule, ..self }
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.source.total_bytes()
    }
}

impl DisplayAs for SourceScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spec, files, bytes) = (&self.source.spec, self.source.files(), self.source.total_bytes());
        let uri = spec.address();
        write!(f, "SourceScanExec: uri={uri}, files={files}, bytes={bytes}, id={}, text={}", spec.id, spec.text)
    }
}

impl ExecutionPlan for SourceScanExec {
    fn name(&self) -> &'static str {
        "SourceScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(DataFusionError::Plan("SourceScanExec has no input".into())) }
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let bytes_read = MetricBuilder::new(&self.metrics).counter(BYTES_READ, partition);
        let (schema, Source { spec, location, columns }) = (self.schema(), self.source.clone());
        let (batch_schema, rule) = (Arc::clone(&schema), self.rule);
        let batches = file_rows(location, columns, spec.format, bytes_read).map(move |item| {
            let (file, rows) = item?;
            let batch = rows.into_batch(rule, &batch_schema, &file.uri)?;
            Ok(batch.record_output(&baseline))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
