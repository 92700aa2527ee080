//! Merges small fragments, and drops rows that were taken away.

use lance::{
    Dataset,
    dataset::optimize::{self, CompactionOptions, compact_files},
};
use polylance_schema::columns::EMBEDDING;
use serde::Serialize;

use crate::{
    commit::retry::{Attempts, is_conflict},
    error::SinkError,
    index::vector::dimensions,
    quarantine::rows::forget_moved,
    table::open,
};

/// Bytes of vectors in a full fragment, and the rows between which that may be.
const FRAGMENT_BYTES: usize = 1 << 30;
const FRAGMENT_ROWS: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 20;

/// Rows that are read and written at once, and bytes that may wait between the two.
const BATCH_ROWS: usize = 1024;
const READ_AHEAD_BYTES: u64 = 256 << 20;

/// Full fragments that one commit may make: what a conflict can cost, and how old a file can be before it is named.
const COMMIT_FRAGMENTS: usize = 16;

/// What to do when another writer was faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contention {
    /// Begin anew on what it left.
    Retry,
    /// Leave the rest to it, or to the next run.
    Leave,
}

/// What [`compact`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Fragments there were.
    pub fragments_before: u64,
    /// Fragments there are.
    pub fragments_after: u64,
    /// Fragments that are now part of another.
    pub fragments_merged: u64,
    /// Whether another writer was faster, and the rest was left.
    pub left: bool,
    /// The table's version.
    pub version: u64,
}

/// What [`compact`] would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedCompaction {
    /// Fragments there are.
    pub fragments_before: u64,
    /// Fragments there would be, when each merge makes one.
    pub fragments_after: u64,
}

/// Merges small neighbours of the table at `uri`, and rewrites fragments of which a tenth was taken away, when it has
/// more than `above` small fragments; with 0, in any case. Columns, their metadata and nulls stay; rows keep their order; the index follows.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::Conflict`] with [`Contention::Retry`], or [`SinkError::Storage`].
pub async fn compact(uri: &str, above: usize, contention: Contention) -> Result<Compacted, SinkError> {
    let mut dataset = open::existing(uri).await?;
    let options = options(&dataset);
    let fragments_before = dataset.count_fragments() as u64;
    let (mut merged, mut left) = (0, false);
    if above == 0 || small_fragments(&dataset, options.target_rows_per_fragment) > above {
        let mut attempts = Attempts::default();
        loop {
            match Box::pin(compact_files(&mut dataset, options.clone(), None)).await {
                Ok(metrics) if metrics.fragments_removed == 0 => break,
                Ok(metrics) => {
                    merged += metrics.fragments_removed as u64;
                    attempts = Attempts::default();
                    // One commit is all that a run spends on it.
                    if contention == Contention::Leave {
                        break;
                    }
                }
                Err(error) if is_conflict(&error) && contention == Contention::Leave => {
                    left = true;
                    break;
                }
                Err(error) if is_conflict(&error) => attempts.conflict(uri, error).await?,
                Err(error) => return Err(SinkError::storage(uri, "merging fragments")(error)),
            }
            let latest = Box::pin(dataset.checkout_latest()).await;
            latest.map_err(SinkError::storage(uri, "looking for a newer version"))?;
        }
    }
    if merged > 0 {
        forget_moved(uri).await?;
    }
    let (fragments_after, version) = (dataset.count_fragments() as u64, dataset.version_id());
    Ok(Compacted { fragments_before, fragments_after, fragments_merged: merged, left, version })
}

/// What [`compact`] would do with the table at `uri`. Nothing is written.
///
/// # Errors
/// [`SinkError::NoTable`] or [`SinkError::Storage`].
pub async fn plan_compaction(uri: &str) -> Result<PlannedCompaction, SinkError> {
    let dataset = open::existing(uri).await?;
    // Without the limit of one commit: all of them together.
    let options = CompactionOptions { max_source_rows: None, ..options(&dataset) };
    let plan = Box::pin(optimize::plan_compaction(&dataset, &options)).await;
    let plan = plan.map_err(SinkError::storage(uri, "looking for small fragments"))?;
    let fragments_before = dataset.count_fragments() as u64;
    let merged: usize = plan.compaction_tasks().map(|task| task.task.fragments.len()).sum();
    let fragments_after = fragments_before - merged as u64 + plan.num_tasks() as u64;
    Ok(PlannedCompaction { fragments_before, fragments_after })
}

/// One task at a time, in small batches: memory does not grow with the table.
fn options(dataset: &Dataset) -> CompactionOptions {
    let target = full_fragment(dataset);
    CompactionOptions {
        target_rows_per_fragment: target,
        num_threads: Some(1),
        batch_size: Some(BATCH_ROWS),
        io_buffer_size: Some(READ_AHEAD_BYTES),
        max_source_rows: Some(target * COMMIT_FRAGMENTS),
        ..CompactionOptions::default()
    }
}

/// Rows of a full fragment: fewer when vectors are long. A table without vectors gets the most.
fn full_fragment(dataset: &Dataset) -> usize {
    let dim = if dataset.schema().field(EMBEDDING).is_some() { dimensions(dataset) } else { 1 };
    (FRAGMENT_BYTES / (dim * size_of::<f32>())).clamp(*FRAGMENT_ROWS.start(), *FRAGMENT_ROWS.end())
}

/// Fragments with fewer rows than a full one.
fn small_fragments(dataset: &Dataset, target: usize) -> usize {
    let small = |rows: Option<usize>| rows.is_none_or(|rows| rows < target);
    dataset.fragments().iter().filter(|fragment| small(fragment.physical_rows)).count()
}
