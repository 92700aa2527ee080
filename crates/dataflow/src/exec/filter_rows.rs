//! Lets some rows of a source through.
//!
//! in:  `source_schema(keep)`
//! out: the rows that are in the set
//!
//! It stands behind `DistinctIdExec`, which must see every row: which of two rows with one id is the second is known
//! only from both.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use arrow::{
    array::{AsArray, BooleanArray},
    compute::filter_record_batch,
    datatypes::UInt64Type,
};
use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;
use polylance_schema::{
    RecordKind,
    columns::{SOURCE, SOURCE_ROW},
};

use super::operator;
use crate::batches::column;

/// Rows of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    files: HashMap<String, FileRows>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct FileRows {
    rows: HashSet<u64>,
    /// This row and all after it.
    from: Option<u64>,
}

impl RowSet {
    /// Adds what a record of the quarantine stands for. A row of the table is no row of the source.
    pub fn insert(&mut self, source: &str, row: u64, kind: RecordKind) {
        match kind {
            RecordKind::Row => {
                self.files.entry(source.to_owned()).or_default().rows.insert(row);
            }
            RecordKind::FileTail => {
                let file = self.files.entry(source.to_owned()).or_default();
                file.from = Some(file.from.map_or(row, |from| from.min(row)));
            }
            RecordKind::Annotation => {}
        }
    }

    /// Whether no row is in the set.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether a row is in the set.
    pub fn contains(&self, source: &str, row: u64) -> bool {
        let Some(file) = self.files.get(source) else { return false };
        file.rows.contains(&row) || file.from.is_some_and(|from| row >= from)
    }
}

/// Keeps the rows of a set.
#[derive(Debug)]
pub struct OnlyRowsExec {
    rows: Arc<RowSet>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl OnlyRowsExec {
    /// Over a scan whose ids are distinct.
    pub fn new(input: Arc<dyn ExecutionPlan>, rows: Arc<RowSet>) -> Self {
        let properties = operator::properties(input.schema());
        Self { rows, input, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for OnlyRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self.rows.files.values().map(|file| file.rows.len()).sum();
        write!(f, "OnlyRowsExec: files={}, rows={rows}", self.rows.files.len())
    }
}

impl ExecutionPlan for OnlyRowsExec {
    fn name(&self) -> &'static str {
        "OnlyRowsExec"
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
        Ok(Arc::new(Self::new(operator::only_child(self.name(), children)?, Arc::clone(&self.rows))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let rows = Arc::clone(&self.rows);
        let batches = self.input.execute(partition, context)?.try_filter_map(move |batch| {
            let kept = || {
                let sources = column(&batch, SOURCE)?.as_string::<i32>();
                let numbers = column(&batch, SOURCE_ROW)?.as_primitive::<UInt64Type>();
                let keep: BooleanArray = (0..batch.num_rows())
                    .map(|row| Some(rows.contains(sources.value(row), numbers.value(row))))
                    .collect();
                let kept = filter_record_batch(&batch, &keep)?;
                Ok((kept.num_rows() > 0).then(|| kept.record_output(&baseline)))
            };
            std::future::ready(kept())
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_broke_off_goes_on_from_there() {
        let mut rows = RowSet::default();
        assert!(rows.is_empty());
        rows.insert("a", 3, RecordKind::Row);
        for row in [9, 7] {
            rows.insert("b", row, RecordKind::FileTail);
        }
        let held = [("a", 2), ("a", 3), ("a", 4), ("b", 6), ("b", 7), ("b", 100), ("c", 3)];
        let found = held.map(|(file, row)| rows.contains(file, row));
        assert_eq!(found, [false, true, false, false, true, true, false]);
    }
}
