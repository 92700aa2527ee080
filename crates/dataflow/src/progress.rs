//! The progress of a running plan, from the metrics of its operators.

use datafusion::physical_plan::ExecutionPlan;

use crate::exec::{
    anti_join::{AntiJoinExec, ROWS_SKIPPED},
    encode::{EncodeExec, TOKENS},
    scan::{BYTES_READ, SourceScanExec},
};

/// Counts of a running or finished plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
        }
    });
    progress
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
