//! The progress of a running plan, from the metrics of its operators.

use datafusion::physical_plan::{
    ExecutionPlan,
    metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder},
};

use serde::{Deserialize, Serialize};

use crate::exec::{
    anti_join::{AntiJoinExec, ROWS_SKIPPED},
    encode::{EncodeExec, TOKENS},
    scan::{BYTES_READ, SourceScanExec},
};

/// Names of the metrics of [`SplitMetrics`].
const SPLIT_BYTES_READ: &str = "split_bytes_read";
const SPLIT_BYTES_TOTAL: &str = "split_bytes_total";
const SPLIT_ROWS_READ: &str = "split_rows_read";
const SPLIT_ROWS_SKIPPED: &str = "split_rows_skipped";
const SPLIT_CHUNKS: &str = "split_chunks";
const SPLIT_TOKENS: &str = "split_tokens";

/// Counts of a running or finished plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// Bytes of the source's files read so far, as stored.
    pub bytes_read: u64,
    /// Bytes of all files; of a shard those of its files and of the ones before it, whose ids are read.
    pub bytes_total: u64,
    /// Rows read.
    pub rows_read: u64,
    /// Rows skipped because the table has them.
    pub rows_skipped: u64,
    /// Chunks encoded.
    pub chunks_encoded: u64,
    /// Tokens encoded.
    pub tokens_encoded: u64,
}

/// Reads the counts of a plan made by [`plan_embeddings`](crate::plan_embeddings), alone or below other operators.
pub fn progress(plan: &dyn ExecutionPlan) -> SourceProgress {
    let mut progress = SourceProgress::default();
    visit(plan, &mut |plan| {
        if let Some(scan) = plan.downcast_ref::<SourceScanExec>() {
            progress.bytes_total += scan.total_bytes();
            progress.bytes_read += counter(plan, BYTES_READ).min(scan.total_bytes());
            progress.rows_read += if scan.yields_documents() { output_rows(plan) } else { 0 };
        } else if plan.is::<AntiJoinExec>() {
            progress.rows_skipped = counter(plan, ROWS_SKIPPED);
        } else if plan.is::<EncodeExec>() {
            progress.chunks_encoded = output_rows(plan);
            progress.tokens_encoded = counter(plan, TOKENS);
        } else {
            progress.bytes_read += counter(plan, SPLIT_BYTES_READ);
            progress.bytes_total += counter(plan, SPLIT_BYTES_TOTAL);
            progress.rows_read += counter(plan, SPLIT_ROWS_READ);
            progress.rows_skipped += counter(plan, SPLIT_ROWS_SKIPPED);
            progress.chunks_encoded += counter(plan, SPLIT_CHUNKS);
            progress.tokens_encoded += counter(plan, SPLIT_TOKENS);
        }
    });
    progress
}

/// The metrics of an operator whose input other machines embed; [`progress`] reads them.
#[derive(Debug, Clone)]
pub struct SplitMetrics {
    bytes_read: Count,
    rows_read: Count,
    rows_skipped: Count,
    chunks: Count,
    tokens: Count,
}

impl SplitMetrics {
    /// Registers the metrics of a source with this many bytes.
    pub fn new(metrics: &ExecutionPlanMetricsSet, bytes_total: u64) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, 0);
        counter(SPLIT_BYTES_TOTAL).add(bytes_total as usize);
        Self {
            bytes_read: counter(SPLIT_BYTES_READ),
            rows_read: counter(SPLIT_ROWS_READ),
            rows_skipped: counter(SPLIT_ROWS_SKIPPED),
            chunks: counter(SPLIT_CHUNKS),
            tokens: counter(SPLIT_TOKENS),
        }
    }

    /// Adds the counts of a split, which has `bytes` of the source.
    pub fn add(&self, split: &SourceProgress, bytes: u64) {
        self.bytes_read.add(bytes as usize);
        self.rows_read.add(split.rows_read as usize);
        self.rows_skipped.add(split.rows_skipped as usize);
        self.chunks.add(split.chunks_encoded as usize);
        self.tokens.add(split.tokens_encoded as usize);
    }
}

fn visit(plan: &dyn ExecutionPlan, look: &mut dyn FnMut(&dyn ExecutionPlan)) {
    look(plan);
    for child in plan.children() {
        visit(child.as_ref(), look);
    }
}

fn output_rows(plan: &dyn ExecutionPlan) -> u64 {
    plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0) as u64
}

fn counter(plan: &dyn ExecutionPlan, name: &str) -> u64 {
    plan.metrics().and_then(|metrics| metrics.sum_by_name(name)).map_or(0, |value| value.as_usize() as u64)
}
