//! Reads the files of a source, one after another.
//!
//! in:  nothing
//! out: `source_schema(keep)`: one row a document, in the order of the files and of their rows
//!
//! A row that no model can embed has its `_error` set. A file that cannot be read, or not to its end, is one such row
//! without an id. Only the ids of an unchanged file are filled: the table has its rows. The next file is opened while
//! one is read.

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

use super::{
    operator,
    timing::{time_polls, time_waits},
};
use crate::{
    read::open_file::ReadCounts,
    source::{open::Source, rows::file_rows},
};

/// Name of the metric with the bytes read so far.
pub(crate) const BYTES_READ: &str = "bytes_read";
/// Name of the metric with the Parquet row groups that were not read because of the condition.
const ROW_GROUPS_PRUNED: &str = "row_groups_pruned";
/// Name of the metric with the time in which nothing but the store could make the scan go on.
const WAIT_STORE: &str = "wait_store";
/// Scans a source.
#[derive(Debug)]
pub struct SourceScanExec {
    source: Source,
    yields: Yields,
    rule: ContentRule,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What the rows of a scan are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Yields {
    /// They are the documents of the source.
    Documents,
    /// Their ids are those of documents before a shard.
    EarlierIds,
}

impl SourceScanExec {
    /// Over a source that was opened, and so checked.
    pub fn new(source: Source) -> Self {
        let properties = operator::properties(source_schema(source.keep_fields()));
        let (yields, rule) = (Yields::Documents, ContentRule::default());
        Self { source, yields, rule, properties, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// Over the files before a shard, of which only the ids are read; `None` if the shard needs none of them.
    pub fn earlier_ids(shard: &Source) -> Option<Self> {
        let location = shard.shard.as_ref()?.earlier.clone()?;
        Some(Self { yields: Yields::EarlierIds, ..Self::new(Source { location, ..shard.clone() }) })
    }

    /// Whether the rows are documents of the source, and not the ids before a shard.
    pub(crate) fn yields_documents(&self) -> bool {
        self.yields == Yields::Documents
    }

    /// The scan with content hashes by the rule of a table.
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
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spec, files, bytes) = (&self.source.spec, self.source.files(), self.source.total_bytes());
        let address = spec.address();
        let shard = self.source.shard.as_ref().map(|place| place.shard);
        let mut fields: Vec<(&str, &dyn fmt::Display)> =
            vec![("uri", &address), ("files", &files), ("bytes", &bytes), ("id", &spec.id), ("text", &spec.text)];
        match (&shard, self.yields) {
            (Some(shard), Yields::Documents) => fields.push(("shard", shard)),
            (Some(shard), Yields::EarlierIds) => fields.push(("ids_before_shard", shard)),
            (None, _) => {}
        }
        if let Some(condition) = &spec.condition {
            fields.extend([("where", condition as &dyn fmt::Display), ("files_pruned", &self.source.files_pruned)]);
        }
        operator::fmt_operator(format, f, self.name(), &fields)
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
        let mut counts = ReadCounts {
            bytes_read: MetricBuilder::new(&self.metrics).counter(BYTES_READ, partition),
            ..ReadCounts::default()
        };
        if self.source.spec.condition.is_some() {
            counts.row_groups_pruned = MetricBuilder::new(&self.metrics).counter(ROW_GROUPS_PRUNED, partition);
        }
        let wait_store = MetricBuilder::new(&self.metrics).subset_time(WAIT_STORE, partition);
        let work = baseline.elapsed_compute().clone();
        let (schema, Source { spec, location, projection, .. }) = (self.schema(), self.source.clone());
        let (batch_schema, rule) = (Arc::clone(&schema), self.rule);
        let batches = file_rows(location, projection, spec.format, counts).map(move |item| {
            let (file, rows) = item?;
            let batch = rows.into_batch(rule, &batch_schema, &file.uri)?;
            Ok(batch.record_output(&baseline))
        });
        let batches = time_waits(time_polls(batches.boxed(), work).boxed(), wait_store, || true);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::stats::Precision;
    use polylance_schema::columns::DOC_ID;

    use super::{
        super::testing::{metric, rows, shown, texts},
        *,
    };
    use crate::source::spec::SourceSpec;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_scan_measures_its_work_and_its_waits_and_estimates_no_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docs.jsonl");
        let lines = "{\"id\":\"a\",\"text\":\"one\"}\n{\"id\":\"b\",\"text\":\"two\"}\n";
        std::fs::write(&path, lines).unwrap();
        let uri = path.display().to_string();
        let scan = SourceScanExec::new(Source::open(SourceSpec::new(uri.clone())).await.unwrap());
        assert_eq!(scan.partition_statistics(None).unwrap().num_rows, Precision::Absent);
        let fields = [format!("uri={uri}"), "files=1".into(), format!("bytes={}", lines.len()), "id=id".into()];
        let (line, tree) = shown(&scan);
        assert_eq!(line, format!("SourceScanExec: {}, text=text", fields.join(", ")));
        assert_eq!(tree, format!("{}\ntext=text\n", fields.join("\n")));

        let plan: Arc<dyn ExecutionPlan> = Arc::new(scan);
        let found = rows(&plan, Arc::new(TaskContext::default())).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "b"]);
        assert_eq!((metric(&plan, BYTES_READ), metric(&plan, "output_rows")), (lines.len(), 2));
        // The file is opened and read on other threads.
        assert!(metric(&plan, "elapsed_compute") > 0 && metric(&plan, WAIT_STORE) > 0);
    }
}
