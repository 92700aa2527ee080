//! The result of a split: windows and ids as Arrow streams, and a summary in the metadata of the first.
//!
//! ```text
//! stream 1    window_schema()                      the data files, and the rows that failed
//! stream 2    hash: FixedSizeBinary(16), refused   the ids of the split
//! ```
//!
//! An error is a result too: the machine that drives the run decides what happens to it.

use std::{collections::HashMap, io::Cursor, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::{
        CompressionType,
        reader::StreamReader,
        writer::{IpcWriteOptions, StreamWriter},
    },
};
use polylance_dataflow::{SourceProgress, SplitIds};
use polylance_sink::window_schema;
use serde::{Deserialize, Serialize};

use crate::error::ClusterError;

/// The key of the summary in the metadata of the first stream.
const SUMMARY_KEY: &str = "polylance.split";
/// Hashes in a batch of the second stream.
const BATCH_HASHES: usize = 1 << 16;

/// The result of a split.
#[derive(Debug, Clone, Default)]
pub struct SplitResult {
    /// Counts, or an error.
    pub summary: SplitSummary,
    /// Batches of [`window_schema`].
    pub windows: Vec<RecordBatch>,
    /// The ids of the split.
    pub ids: SplitIds,
}

/// Counts of a split, or its error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// The error; `None` if the split is done.
    pub failure: Option<SplitFailure>,
    /// The machine.
    pub host: String,
    /// Counts of the plan.
    pub progress: SourceProgress,
    /// Rows that go to the quarantine.
    pub quarantined: u64,
    /// Rows and files without a readable id.
    pub without_id: u64,
    /// Time from the task's arrival to its end.
    pub seconds: f64,
}

/// The error of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitFailure {
    /// Its kind.
    pub kind: FailureKind,
    /// The error and its causes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What happens to a split after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Another attempt may succeed.
    Transient,
    /// Every attempt fails.
    Permanent,
    /// The executor must not embed for this run: it has another model or another version.
    Executor,
}

impl SplitResult {
    /// The result of a split that failed.
    pub fn failed(host: &str, failure: SplitFailure) -> Self {
        let summary = SplitSummary { failure: Some(failure), host: host.to_owned(), ..SplitSummary::default() };
        Self { summary, ..Self::default() }
    }

    /// The result as bytes.
    ///
    /// # Errors
    /// [`ClusterError::Format`], which is a defect.
    pub fn encode(&self) -> Result<Vec<u8>, ClusterError> {
        let summary = serde_json::to_string(&self.summary).map_err(|error| ClusterError::format("a result", error))?;
        let metadata = HashMap::from([(SUMMARY_KEY.to_owned(), summary)]);
        let schema = window_schema().as_ref().clone().with_metadata(metadata);
        let bytes = write(&schema, self.windows.iter().map(|window| Ok(window.clone())), Vec::new())?;
        let good = self.ids.good.chunks(BATCH_HASHES).map(|hashes| id_batch(hashes, false));
        let refused = self.ids.refused.chunks(BATCH_HASHES).map(|hashes| id_batch(hashes, true));
        Ok(write(&id_schema(), good.chain(refused), bytes)?)
    }

    /// The result in bytes.
    ///
    /// # Errors
    /// [`ClusterError::Format`] if they are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterError> {
        let damaged = |error: ArrowError| ClusterError::format("the result of a split", error);
        let mut bytes = Cursor::new(bytes);
        let mut windows = StreamReader::try_new(&mut bytes, None).map_err(damaged)?;
        let schema = windows.schema();
        let summary = schema.metadata().get(SUMMARY_KEY).map(String::as_str).unwrap_or_default();
        let summary: SplitSummary =
            serde_json::from_str(summary).map_err(|error| ClusterError::format("the result of a split", error))?;
        let plain = window_schema();
        // Without the summary in the metadata of the stream.
        let window = |batch: Result<RecordBatch, ArrowError>| {
            let (_, columns, _) = batch?.into_parts();
            RecordBatch::try_new(Arc::clone(&plain), columns)
        };
        let windows = windows.by_ref().map(window).collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        let mut ids = SplitIds { without_id: summary.without_id, ..SplitIds::default() };
        for batch in StreamReader::try_new(&mut bytes, None).map_err(damaged)? {
            let batch = batch.map_err(damaged)?;
            if batch.schema().fields() != id_schema().fields() {
                return Err(damaged(ArrowError::SchemaError(format!("unexpected columns {}", batch.schema()))));
            }
            let (hashes, refused) = (batch.column(0).as_fixed_size_binary(), batch.column(1).as_boolean());
            for (hash, refused) in hashes.iter().zip(refused) {
                let hash = hash.and_then(|hash| hash.first_chunk()).copied().unwrap_or_default();
                let list = if refused == Some(true) { &mut ids.refused } else { &mut ids.good };
                list.push(u128::from_le_bytes(hash));
            }
        }
        Ok(Self { summary, windows, ids })
    }
}

/// Hashes as the bytes of an object of the outbox.
pub(crate) fn hash_bytes(hashes: &[u128]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect()
}

/// The hashes of [`hash_bytes`].
pub(crate) fn hashes_of(bytes: &[u8]) -> Vec<u128> {
    let (hashes, _) = bytes.as_chunks();
    hashes.iter().map(|hash| u128::from_le_bytes(*hash)).collect()
}

fn write(
    schema: &Schema,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = StreamWriter::try_new_with_options(bytes, schema, options)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    writer.into_inner()
}

fn id_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("hash", DataType::FixedSizeBinary(16), false),
        Field::new("refused", DataType::Boolean, false),
    ]))
}

fn id_batch(hashes: &[u128], refused: bool) -> Result<RecordBatch, ArrowError> {
    let values = FixedSizeBinaryArray::try_from_iter(hashes.iter().map(|hash| hash.to_le_bytes()))?;
    let columns: Vec<ArrayRef> = vec![Arc::new(values), Arc::new(BooleanArray::from(vec![refused; hashes.len()]))];
    RecordBatch::try_new(id_schema(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let ids = SplitIds { good: (0..100_000).collect(), refused: vec![u128::MAX], without_id: 2 };
        let progress = SourceProgress { rows_read: 7, tokens_encoded: 70, ..SourceProgress::default() };
        let summary =
            SplitSummary { host: "n1".to_owned(), progress, without_id: 2, seconds: 1.5, ..SplitSummary::default() };
        let windows = vec![RecordBatch::new_empty(window_schema())];
        let sent = SplitResult { summary, windows, ids };
        let bytes = sent.encode().unwrap();
        let found = SplitResult::decode(&bytes).unwrap();
        assert_eq!((&found.summary, &found.ids, &found.windows), (&sent.summary, &sent.ids, &sent.windows));
        for damaged in [&bytes[..0], &bytes[..20], &bytes[..bytes.len() / 2]] {
            assert!(matches!(SplitResult::decode(damaged), Err(ClusterError::Format { .. })));
        }
        assert_eq!(hashes_of(&hash_bytes(&[1, u128::MAX])), [1, u128::MAX]);
    }

    #[test]
    fn an_error_is_a_result() {
        let failure = SplitFailure { kind: FailureKind::Executor, message: "other".to_owned(), hint: None };
        let bytes = SplitResult::failed("n1", failure.clone()).encode().unwrap();
        let found = SplitResult::decode(&bytes).unwrap();
        assert_eq!((found.summary.failure, found.summary.host.as_str()), (Some(failure), "n1"));
        assert!(found.windows.is_empty() && found.ids == SplitIds::default());
    }
}
