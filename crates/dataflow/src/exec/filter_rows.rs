//! Keeps some rows of a source and drops the others.
//!
//! in:  `source_schema(keep)`
//! out: the rows that are in the set
//!
//! It comes after `DistinctIdExec`, which has to see every row: only both of two rows with one id show which is the
//! second.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::UInt64Type,
};
use datafusion::{
    common::stats::Precision,
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, Statistics,
        execution_plan::CardinalityEffect,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;
use polylance_schema::{
    RecordKind,
    columns::{SOURCE, SOURCE_ROW},
};

use super::operator;
use crate::{batches::column, single_child_plan};

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
    /// Adds the rows that a record of the quarantine stands for. A record of an annotation stands for a row of the
    /// table, which is no row of the source.
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

    /// The number of rows; `None` when a file is in the set from some row on.
    fn len(&self) -> Option<usize> {
        self.files.values().map(|file| file.from.is_none().then_some(file.rows.len())).sum()
    }
}

/// Keeps the rows of a set.
#[derive(Debug)]
pub struct FilterRowsExec {
    rows: Arc<RowSet>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FilterRowsExec {
    /// Over a scan whose ids are distinct.
    pub fn new(input: Arc<dyn ExecutionPlan>, rows: Arc<RowSet>) -> Self {
        let properties = operator::properties(input.schema());
        Self { rows, input, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for FilterRowsExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self.rows.files.values().map(|file| file.rows.len()).sum();
        operator::fmt_operator(format, f, "FilterRowsExec", &[("files", &self.rows.files.len()), ("rows", &rows)])
    }
}

impl ExecutionPlan for FilterRowsExec {
    single_child_plan!(FilterRowsExec, |this, input| Self::new(input, Arc::clone(&this.rows)));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let rows = Arc::clone(&self.rows);
        let batches = self.input.execute(partition, context)?.try_filter_map(move |batch| {
            let filtered = {
                let _timer = baseline.elapsed_compute().timer();
                filter_rows(&batch, &rows)
            };
            let filtered = filtered.map(|kept| (kept.num_rows() > 0).then(|| kept.record_output(&baseline)));
            std::future::ready(filtered)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let input = self.input.partition_statistics(partition)?.num_rows.to_inexact();
        let rows = match self.rows.len() {
            Some(0) => Precision::Exact(0),
            Some(rows) if input == Precision::Absent => Precision::Inexact(rows),
            Some(rows) => Precision::Inexact(rows).min(&input),
            None => input,
        };
        Ok(operator::row_statistics(&self.schema(), rows))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }
}

fn filter_rows(batch: &RecordBatch, rows: &RowSet) -> Result<RecordBatch> {
    let sources = column(batch, SOURCE)?.as_string::<i32>();
    let numbers = column(batch, SOURCE_ROW)?.as_primitive::<UInt64Type>();
    let is_kept = |row| Some(rows.contains(sources.value(row), numbers.value(row)));
    let kept: BooleanArray = (0..batch.num_rows()).map(is_kept).collect();
    Ok(filter_record_batch(batch, &kept)?)
}

#[cfg(test)]
mod tests {
    use polylance_schema::{columns::DOC_ID, source_schema};

    use super::{
        super::testing::{documents, memory, metric, rows, shown, texts},
        *,
    };

    #[test]
    fn a_file_tail_has_every_row_from_its_first_on() {
        let mut set = RowSet::default();
        assert!(set.is_empty());
        set.insert("a", 3, RecordKind::Row);
        for row in [9, 7] {
            set.insert("b", row, RecordKind::FileTail);
        }
        let cases = [("a", 2), ("a", 3), ("a", 4), ("b", 6), ("b", 7), ("b", 100), ("c", 3)];
        let found = cases.map(|(file, row)| set.contains(file, row));
        assert_eq!(found, [false, true, false, false, true, true, false]);
    }

    /// The rows of `file` with these numbers.
    fn set(numbers: &[u64]) -> Arc<RowSet> {
        let mut set = RowSet::default();
        for row in numbers {
            set.insert("file", *row, RecordKind::Row);
        }
        Arc::new(set)
    }

    #[tokio::test]
    async fn only_the_rows_of_the_set_are_kept() {
        let batches = [documents(&[("a", "one"), ("b", "two"), ("c", "three")])];
        let input = memory(source_schema(&[]), &batches);
        let plan: Arc<dyn ExecutionPlan> = Arc::new(FilterRowsExec::new(input, set(&[0, 2, 7])));
        let found = rows(&plan, Arc::new(TaskContext::default())).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "c"]);
        assert!(metric(&plan, "elapsed_compute") > 0 && metric(&plan, "output_rows") == 2);
    }

    #[test]
    fn the_number_of_rows_is_exact_only_where_there_are_none() {
        let input = memory(source_schema(&[]), &[documents(&[("a", "one"), ("b", "two"), ("c", "three")])]);
        let mut tail = RowSet::default();
        tail.insert("file", 1, RecordKind::FileTail);
        for (set, expected) in [
            (set(&[]), Precision::Exact(0)),
            (set(&[1, 9]), Precision::Inexact(2)),
            (set(&[1, 2, 3, 4]), Precision::Inexact(3)),
            (Arc::new(tail), Precision::Inexact(3)),
        ] {
            let filter = FilterRowsExec::new(Arc::clone(&input), set);
            assert_eq!(filter.partition_statistics(None).unwrap().num_rows, expected);
        }
        let (line, tree) = shown(&FilterRowsExec::new(input, set(&[1, 9])));
        assert_eq!((line.as_str(), tree.as_str()), ("FilterRowsExec: files=1, rows=2", "files=1\nrows=2\n"));
    }
}
