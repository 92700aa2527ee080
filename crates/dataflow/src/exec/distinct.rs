//! Refuses the second and every later row of an id, or drops it if ids are hashes of the texts.
//!
//! in:  `source_schema(keep)`; of a shard also the rows before it, of which only the ids count
//! out: the rows of the first input; a repeated id has its `_error` set and no `content_hash`, or its row is missing
//!
//! Without this operator two rows of one id would replace each other in every run. At the end of the source its ids
//! are left in the session's [`SourceIds`] or [`SplitIdList`], if there is one.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::{filter_record_batch, nullif},
};
use async_stream::try_stream;
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties, Statistics,
        execution_plan::CardinalityEffect,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;
use polylance_schema::{
    Stage,
    columns::{CONTENT_HASH, DOC_ID, ERROR},
};

use super::operator;
use crate::{
    batches::{column, with_errors},
    datafusion_error,
    spill::source_ids::{AllIds, SourceIds, SplitIdList},
};

/// What happens to a row whose id an earlier row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RepeatedId {
    /// The row is refused: which of the two is the document is not known.
    #[default]
    Refused,
    /// The row is dropped: it is the same document.
    Dropped,
}

/// Lets each id through once.
#[derive(Debug)]
pub struct DistinctIdExec {
    repeated: RepeatedId,
    input: Arc<dyn ExecutionPlan>,
    /// The rows before a shard.
    earlier: Option<Arc<dyn ExecutionPlan>>,
    /// Hashes of ids of rows before a split.
    taken: Arc<[u128]>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DistinctIdExec {
    /// Over a scan.
    pub fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = operator::properties(input.schema());
        let (repeated, earlier) = (RepeatedId::default(), None);
        let (taken, metrics) = (Arc::from([]), ExecutionPlanMetricsSet::new());
        Self { repeated, input, earlier, taken, properties, metrics }
    }

    /// With the hashes of ids that rows before those of the input have.
    #[must_use]
    pub fn with_taken(self, taken: Arc<[u128]>) -> Self {
        Self { taken, ..self }
    }

    /// With rows before those of the input: their ids are read first, and they are not returned.
    #[must_use]
    pub fn with_earlier(self, earlier: Option<Arc<dyn ExecutionPlan>>) -> Self {
        Self { earlier, ..self }
    }

    /// With another treatment of repeated ids.
    #[must_use]
    pub fn with_repeated(self, repeated: RepeatedId) -> Self {
        Self { repeated, ..self }
    }
}

impl DisplayAs for DistinctIdExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped: &[(&str, &dyn fmt::Display)] = &[("repeated", &"dropped")];
        let fields = if self.repeated == RepeatedId::Dropped { dropped } else { &[] };
        operator::fmt_operator(format, f, "DistinctIdExec", fields)
    }
}

impl ExecutionPlan for DistinctIdExec {
    fn name(&self) -> &'static str {
        "DistinctIdExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition; self.children().len()]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        [true, false][..self.children().len()].to_vec()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.input).chain(&self.earlier).collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut children = children.into_iter();
        match (children.next(), children.next(), children.next()) {
            (Some(input), earlier, None) if earlier.is_some() == self.earlier.is_some() => {
                let distinct = Self::new(input).with_repeated(self.repeated).with_taken(Arc::clone(&self.taken));
                Ok(Arc::new(distinct.with_earlier(earlier)))
            }
            _ => Err(DataFusionError::Plan(format!("DistinctIdExec has {} inputs", self.children().len()))),
        }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let (source_ids, split_ids) = (SourceIds::of(&context), SplitIdList::of(&context));
        let (repeated, taken) = (self.repeated, Arc::clone(&self.taken));
        let earlier = self.earlier.as_ref().map(|earlier| earlier.execute(0, Arc::clone(&context))).transpose()?;
        let mut input = self.input.execute(partition, context)?;
        let batches = try_stream! {
            let mut ids = AllIds::new();
            for hash in taken.iter() {
                ids.insert_hash(*hash).map_err(datafusion_error::temporary)?;
            }
            if let Some(mut earlier) = earlier {
                while let Some(batch) = earlier.try_next().await? {
                    let _timer = baseline.elapsed_compute().timer();
                    insert_ids(&batch, &mut ids, |_, _| {})?;
                }
            }
            if split_ids.is_some() {
                ids = ids.listed();
            }
            while let Some(batch) = input.try_next().await? {
                let batch = {
                    let _timer = baseline.elapsed_compute().timer();
                    distinct(&batch, &mut ids, repeated)?
                };
                if batch.num_rows() > 0 {
                    yield batch.record_output(&baseline);
                }
            }
            if let Some((split_ids, hashes)) = split_ids.zip(ids.take_hashes()) {
                split_ids.set(hashes);
            }
            if let Some(source_ids) = source_ids {
                source_ids.set(ids);
            }
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let rows = self.input.partition_statistics(partition)?.num_rows;
        let rows = if self.repeated == RepeatedId::Dropped { rows.to_inexact() } else { rows };
        Ok(operator::row_statistics(&self.schema(), rows))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        if self.repeated == RepeatedId::Dropped { CardinalityEffect::LowerEqual } else { CardinalityEffect::Equal }
    }
}

/// Inserts the ids of a batch, and calls `repeated` with each row whose id an earlier row has.
fn insert_ids(batch: &RecordBatch, seen: &mut AllIds, mut repeated: impl FnMut(usize, &str)) -> Result<()> {
    let ids = column(batch, DOC_ID)?.as_string::<i32>();
    let refused = column(batch, ERROR)?;
    for row in 0..batch.num_rows() {
        let id = ids.is_valid(row).then(|| ids.value(row));
        // A row that was refused before did not use its id.
        let (Some(id), true) = (id, refused.is_null(row)) else {
            seen.insert_refused(id).map_err(datafusion_error::temporary)?;
            continue;
        };
        if !seen.insert(id).map_err(datafusion_error::temporary)? {
            repeated(row, id);
        }
    }
    Ok(())
}

fn distinct(batch: &RecordBatch, seen: &mut AllIds, treatment: RepeatedId) -> Result<RecordBatch> {
    let mut messages = vec![None; batch.num_rows()];
    insert_ids(batch, seen, |row, id| {
        messages[row] = Some(format!("duplicate id {id:?}: an earlier row of this run has it"));
    })?;
    if messages.iter().all(Option::is_none) {
        return Ok(batch.clone());
    }
    if treatment == RepeatedId::Dropped {
        let first: BooleanArray = messages.iter().map(|message| Some(message.is_none())).collect();
        return Ok(filter_record_batch(batch, &first)?);
    }
    let repeated: BooleanArray = messages.iter().map(|message| Some(message.is_some())).collect();
    let batch = with_errors(batch, Stage::Distinct, &messages)?;
    let at = batch.schema_ref().index_of(CONTENT_HASH)?;
    let mut columns = batch.columns().to_vec();
    columns[at] = nullif(&columns[at], &repeated)?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use datafusion::{common::stats::Precision, prelude::SessionConfig};
    use polylance_schema::source_schema;

    use super::{
        super::testing::{documents, memory, messages, metric, rows, shown, texts},
        *,
    };

    #[tokio::test]
    async fn the_second_row_of_an_id_is_refused_and_the_ids_are_left_in_the_session() {
        let batches = [documents(&[("a", "one"), ("b", "two")]), documents(&[("a", "three"), ("c", "four")])];
        let plan: Arc<dyn ExecutionPlan> = Arc::new(DistinctIdExec::new(memory(source_schema(&[]), &batches)));
        let left = Arc::new(SourceIds::default());
        let config = SessionConfig::new().with_extension(Arc::clone(&left));
        let context = Arc::new(TaskContext::default().with_session_config(config));
        let found = rows(&plan, context).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "b", "a", "c"]);
        let refused: Vec<bool> = messages(&found).iter().map(Option::is_some).collect();
        assert_eq!(refused, [false, false, true, false]);
        assert!(found[CONTENT_HASH].is_null(2) && found[CONTENT_HASH].null_count() == 1);
        assert!(left.take().unwrap().contains("c").unwrap());
        assert!(metric(&plan, "elapsed_compute") > 0 && metric(&plan, "output_rows") == 4);
    }

    #[tokio::test]
    async fn a_repeated_row_is_dropped_if_it_is_the_same_document() {
        let batches =
            [documents(&[("a", "one"), ("a", "one")]), documents(&[("a", "one")]), documents(&[("b", "two")])];
        let distinct = DistinctIdExec::new(memory(source_schema(&[]), &batches)).with_repeated(RepeatedId::Dropped);
        assert_eq!(distinct.partition_statistics(None).unwrap().num_rows, Precision::Inexact(4));
        assert_eq!(shown(&distinct).0, "DistinctIdExec: repeated=dropped");
        let found = rows(&(Arc::new(distinct) as Arc<dyn ExecutionPlan>), Arc::default()).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "b"]);
        assert!(messages(&found).iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn the_ids_before_a_shard_are_taken_and_their_rows_are_not_returned() {
        let schema = source_schema(&[]);
        let earlier = memory(Arc::clone(&schema), &[documents(&[("a", "one"), ("a", "two"), ("b", "three")])]);
        let input = memory(schema, &[documents(&[("b", "four"), ("c", "five")])]);
        let plan: Arc<dyn ExecutionPlan> = Arc::new(DistinctIdExec::new(input).with_earlier(Some(earlier)));
        let children: Vec<_> = plan.children().into_iter().map(Arc::clone).collect();
        let one = Arc::clone(&plan).with_new_children(children[..1].to_vec()).unwrap_err().to_string();
        assert!(one.contains("DistinctIdExec has 2 inputs"), "{one}");
        let plan = plan.with_new_children(children).unwrap();
        let found = rows(&plan, Arc::default()).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["b", "c"]);
        let refused: Vec<bool> = messages(&found).iter().map(Option::is_some).collect();
        assert_eq!(refused, [true, false]);
        assert_eq!(metric(&plan, "output_rows"), 2);
    }

    #[tokio::test]
    async fn ids_taken_by_rows_before_a_split_are_refused_and_the_others_are_listed() {
        let input = memory(source_schema(&[]), &[documents(&[("a", "one"), ("b", "two"), ("b", "three")])]);
        let distinct = DistinctIdExec::new(input).with_taken(Arc::from([polylance_ids::hash(b"a")]));
        let list = Arc::new(SplitIdList::default());
        let config = SessionConfig::new().with_extension(Arc::clone(&list));
        let context = Arc::new(TaskContext::default().with_session_config(config));
        let found = rows(&(Arc::new(distinct) as Arc<dyn ExecutionPlan>), context).await.unwrap();
        let refused: Vec<bool> = messages(&found).iter().map(Option::is_some).collect();
        assert_eq!(refused, [true, false, true]);
        assert_eq!(list.take().unwrap().good, [polylance_ids::hash(b"b")]);
    }

    #[test]
    fn rows_are_as_many_as_in_the_input() {
        let input = memory(source_schema(&[]), &[documents(&[("a", "one"), ("a", "two")])]);
        let distinct = DistinctIdExec::new(input);
        assert_eq!(distinct.partition_statistics(None).unwrap().num_rows, Precision::Exact(2));
        assert_eq!(shown(&distinct), ("DistinctIdExec".to_owned(), String::new()));
    }
}
