//! Merges small fragments, and rewrites fragments without their deleted rows.

use lance::{
    Dataset,
    dataset::optimize::{self, CompactionOptions, compact_files},
};
use polylance_schema::columns::EMBEDDING;
use serde::Serialize;

use crate::{
    commit::retry::{CommitRetry, is_conflict},
    error::SinkError,
    index::vector::dimensions,
    quarantine::rows::drop_records_of_moved_rows,
    table::open,
};

/// Bytes of vectors in a full fragment.
const FULL_FRAGMENT_VECTOR_BYTES: usize = 1 << 30;
/// Limits of the rows of a full fragment.
const FULL_FRAGMENT_ROWS: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 20;

/// Rows that are read and written at a time.
const COPY_BATCH_ROWS: usize = 1024;
/// Bytes that may be read ahead of the writer.
const READ_AHEAD_BYTES: u64 = 256 << 20;

/// Full fragments per commit: limits the cost of a conflict, and the age of a file at its commit.
const MAX_FRAGMENTS_PER_COMMIT: usize = 16;

/// How a compaction reacts when another writer commits first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Start again from the version that it left.
    Retry,
    /// Leave the rest to a later run.
    GiveUp,
}

/// What [`compact`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompactionReport {
    /// Fragments before.
    pub fragments_before: u64,
    /// Fragments after.
    pub fragments_after: u64,
    /// Fragments merged into others.
    pub fragments_merged: u64,
    /// Whether another writer committed first, and the rest was left.
    pub gave_up: bool,
    /// The table's version.
    pub version: u64,
}

/// What [`compact`] would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompactionPlan {
    /// Fragments before.
    pub fragments_before: u64,
    /// Fragments after, when each merge makes one.
    pub fragments_after: u64,
}

/// Merges adjacent small fragments of the table at `uri`, and rewrites fragments with a tenth of their rows deleted,
/// when the table has more than `above` small fragments; with 0, always. Columns, their metadata and nulls stay, rows
/// keep their order, and the indices are remapped.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::Conflict`] with [`OnConflict::Retry`], or [`SinkError::Storage`].
pub async fn compact(uri: &str, above: usize, on_conflict: OnConflict) -> Result<CompactionReport, SinkError> {
    let mut dataset = open::existing(uri).await?;
    let options = options(&dataset);
    let fragments_before = dataset.count_fragments() as u64;
    let (mut merged, mut gave_up) = (0, false);
    if above == 0 || small_fragments(&dataset, options.target_rows_per_fragment) > above {
        let mut retry = CommitRetry::default();
        loop {
            match Box::pin(compact_files(&mut dataset, options.clone(), None)).await {
                Ok(metrics) if metrics.fragments_removed == 0 => break,
                Ok(metrics) => {
                    merged += metrics.fragments_removed as u64;
                    retry = CommitRetry::default();
                    // A run spends one commit on it.
                    if on_conflict == OnConflict::GiveUp {
                        break;
                    }
                }
                Err(error) if is_conflict(&error) && on_conflict == OnConflict::GiveUp => {
                    gave_up = true;
                    break;
                }
                Err(error) if is_conflict(&error) => retry.wait_after_conflict(uri, error).await?,
                Err(error) => return Err(SinkError::storage(uri, "merging fragments")(error)),
            }
            let latest = Box::pin(dataset.checkout_latest()).await;
            latest.map_err(SinkError::storage(uri, "looking for a newer version"))?;
        }
    }
    if merged > 0 {
        drop_records_of_moved_rows(uri).await?;
    }
    let (fragments_after, version) = (dataset.count_fragments() as u64, dataset.version_id());
    Ok(CompactionReport { fragments_before, fragments_after, fragments_merged: merged, gave_up, version })
}

/// What [`compact`] would do with the table at `uri`. Nothing is written.
///
/// # Errors
/// [`SinkError::NoTable`] or [`SinkError::Storage`].
pub async fn plan_compaction(uri: &str) -> Result<CompactionPlan, SinkError> {
    let dataset = open::existing(uri).await?;
    // Without the limit of one commit: all merges together.
    let options = CompactionOptions { max_source_rows: None, ..options(&dataset) };
    let plan = Box::pin(optimize::plan_compaction(&dataset, &options)).await;
    let plan = plan.map_err(SinkError::storage(uri, "looking for small fragments"))?;
    let fragments_before = dataset.count_fragments() as u64;
    let merged: usize = plan.compaction_tasks().map(|task| task.task.fragments.len()).sum();
    let fragments_after = fragments_before - merged as u64 + plan.num_tasks() as u64;
    Ok(CompactionPlan { fragments_before, fragments_after })
}

/// One task at a time and small batches: memory does not grow with the table.
fn options(dataset: &Dataset) -> CompactionOptions {
    let target = full_fragment(dataset);
    CompactionOptions {
        target_rows_per_fragment: target,
        num_threads: Some(1),
        batch_size: Some(COPY_BATCH_ROWS),
        io_buffer_size: Some(READ_AHEAD_BYTES),
        max_source_rows: Some(target * MAX_FRAGMENTS_PER_COMMIT),
        ..CompactionOptions::default()
    }
}

/// Rows of a full fragment: fewer for longer vectors. A table without vectors gets the maximum.
fn full_fragment(dataset: &Dataset) -> usize {
    let dim = if dataset.schema().field(EMBEDDING).is_some() { dimensions(dataset) } else { 1 };
    (FULL_FRAGMENT_VECTOR_BYTES / (dim * size_of::<f32>()))
        .clamp(*FULL_FRAGMENT_ROWS.start(), *FULL_FRAGMENT_ROWS.end())
}

/// The number of fragments with fewer rows than a full one.
fn small_fragments(dataset: &Dataset, target: usize) -> usize {
    let small = |rows: Option<usize>| rows.is_none_or(|rows| rows < target);
    dataset.fragments().iter().filter(|fragment| small(fragment.physical_rows)).count()
}
