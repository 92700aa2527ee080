//! Records in the table the source files of which it has all rows, so that unchanged files need not be read again.
//!
//! The record is an entry of the table's configuration: it is committed like rows, moves with the table, and disappears
//! when the table is created again. It is valid as long as later commits only add rows. When rows are deleted or
//! replaced, it is invalid, and the next run compares row by row. A long list of files would be written again with
//! every version of the table, so it is stored in `docs.sources/` next to `docs.lance`, under its hash.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    fmt::Write,
};

use lance::{
    Dataset,
    dataset::transaction::{Operation, Transaction},
};
use lance_table::format::Fragment;
use polylance_schema::{HeadContract, search::MAP_METADATA_KEY};
use serde::{Deserialize, Serialize};

use crate::{
    commit::{
        properties,
        retry::{CommitRetry, is_conflict},
    },
    error::SinkError,
    table::{
        Table, open,
        sidecar::{Sidecar, sidecar_uri},
    },
};

/// Which files a run has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestScope {
    /// All files of the source: its record replaces that of an earlier run.
    Source,
    /// Those of a shard: they are added to the record.
    Shard,
}

/// The files that a run has read to the end of its source, or of a shard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceManifest {
    /// Which files the run has seen.
    pub scope: ManifestScope,
    /// The hash of the pipeline, see [`properties::PIPELINE`].
    pub pipeline: String,
    /// A hash of the source's files as the run listed them; `None` when the table lacks rows of them.
    pub source_hash: Option<String>,
    /// The hash of each file of which the table has all rows, in ascending order.
    pub file_hashes: Vec<u128>,
    /// Rows of the source.
    pub rows: u64,
    /// The table's version when the run began; `None` when there was none.
    pub since: Option<u64>,
    /// Versions that the run itself made.
    pub own_versions: BTreeSet<u64>,
    /// The types in which the source's SQL reads columns, if there is SQL.
    pub input_types: Option<InputTypes>,
}

/// The types in which the SQL of a source reads columns. They are decided once, like those of kept columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputTypes {
    /// Identifies the source and its SQL.
    pub key: String,
    /// The types, in a form that the source reads.
    pub types: String,
}

/// The value of the entry `polylance.finished.<pipeline>`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    source: Option<String>,
    /// The hash of the list of files.
    files: Option<String>,
    rows: u64,
    version: u64,
}

impl Table {
    /// Rows of the source, when a run of this pipeline has recorded these files and the table has lost no row since.
    ///
    /// # Errors
    /// [`SinkError::Storage`].
    pub async fn recorded_rows(&self, pipeline: &str, source: &str) -> Result<Option<u64>, SinkError> {
        let record = valid_record(self.uri(), self.dataset(), pipeline).await?;
        Ok(record.filter(|record| record.source.as_deref() == Some(source)).map(|record| record.rows))
    }

    /// The types that an earlier run recorded under this [`InputTypes::key`].
    pub fn recorded_input_types(&self, key: &str) -> Option<&str> {
        self.dataset().config().get(&types_key(key)).map(String::as_str)
    }

    /// Hashes of the files of which a run of this pipeline has recorded all rows, when the table has lost none since.
    ///
    /// # Errors
    /// [`SinkError::Storage`].
    pub async fn recorded_files(&self, pipeline: &str) -> Result<HashSet<u128>, SinkError> {
        match valid_record(self.uri(), self.dataset(), pipeline).await? {
            Some(record) => listed_files(self.uri(), &record).await,
            None => Ok(HashSet::new()),
        }
    }
}

/// Records in the table at `uri` the files of which it has all rows, and returns the version of the record. `None` when
/// the table has this record already, or when another writer has deleted rows since the run began.
///
/// # Errors
/// [`SinkError::Storage`], [`SinkError::Conflict`] when other writers keep changing the same entry.
pub async fn record_manifest(uri: &str, run: &SourceManifest) -> Result<Option<u64>, SinkError> {
    let mut retry = CommitRetry::default();
    loop {
        match Box::pin(try_record_manifest(uri, run)).await {
            // Another run of the same pipeline ended at the same time.
            Err(SinkError::Storage { source, .. }) if is_conflict(&source) => {
                retry.wait_after_conflict(uri, source).await?;
            }
            ended => return ended,
        }
    }
}

async fn try_record_manifest(uri: &str, run: &SourceManifest) -> Result<Option<u64>, SinkError> {
    let Some(mut dataset) = open::latest(uri).await? else { return Ok(None) };
    let before = valid_record(uri, &dataset, &run.pipeline).await?;
    let (source, rows, hashes) = match (run.scope, &before) {
        (ManifestScope::Shard, Some(before)) => {
            let mut hashes = listed_files(uri, before).await?;
            hashes.extend(&run.file_hashes);
            let mut hashes: Vec<u128> = hashes.into_iter().collect();
            hashes.sort_unstable();
            (before.source.clone(), before.rows, Cow::Owned(hashes))
        }
        _ => (run.source_hash.clone(), run.rows, Cow::Borrowed(run.file_hashes.as_slice())),
    };
    // For a source of one file, the hash of the source suffices.
    let listed = hashes.len() > usize::from(source.is_some() && run.scope == ManifestScope::Source);
    let list = listed.then(|| lines(&hashes));
    let files = list.as_ref().map(|list| hash_of(list.as_bytes()));
    let recorded = match &before {
        Some(record) => record.source == source && record.files == files,
        None => source.is_none() && files.is_none(),
    };
    // Types are recorded even if no file is: standard input has none, and a row in the quarantine keeps its file from
    // being recorded.
    let typed = |input: &InputTypes| dataset.config().get(&types_key(&input.key)) == Some(&input.types);
    let recorded = recorded && run.input_types.as_ref().is_none_or(typed);
    // The version that creates a table removes nothing, whoever makes it.
    if recorded || !only_additions(uri, &dataset, run.since.unwrap_or(1), &run.own_versions).await? {
        return Ok(None);
    }
    if let (Some(hash), Some(list)) = (&files, list) {
        lists(uri).await?.write(&list_name(hash), list.into_bytes()).await?;
    }
    let record = Record { source, files, rows, version: dataset.version_id() };
    let value = serde_json::to_string(&record).map_err(|error| SinkError::rows(uri, error.to_string()))?;
    let types = run.input_types.iter().map(|input| (types_key(&input.key), input.types.clone()));
    let entries: Vec<(String, String)> = std::iter::once((key(&run.pipeline), value)).chain(types).collect();
    let written = Box::pin(dataset.update_config(entries).into_future()).await;
    written.map_err(SinkError::storage(uri, "recording the source manifest"))?;
    if let Some(old) = before.and_then(|before| before.files).filter(|old| record.files.as_ref() != Some(old)) {
        lists(uri).await?.remove(&list_name(&old)).await;
    }
    Ok(Some(dataset.version_id()))
}

fn key(pipeline: &str) -> String {
    format!("polylance.finished.{pipeline}")
}

fn types_key(key: &str) -> String {
    format!("polylance.source_types.{key}")
}

/// The hashes of the files in a record.
async fn listed_files(uri: &str, record: &Record) -> Result<HashSet<u128>, SinkError> {
    let Some(hash) = &record.files else { return Ok(HashSet::new()) };
    let list = lists(uri).await?.read(&list_name(hash)).await?;
    // When another run has replaced the list, all files are read.
    let list = list.filter(|list| hash_of(list) == *hash).unwrap_or_default();
    let hashes = String::from_utf8_lossy(&list);
    Ok(hashes.lines().filter_map(|hash| u128::from_str_radix(hash, 16).ok()).collect())
}

async fn lists(uri: &str) -> Result<Sidecar, SinkError> {
    Sidecar::open(sidecar_uri(uri, "sources"), "keeping the source manifest").await
}

fn list_name(hash: &str) -> String {
    format!("{hash}.txt")
}

/// One hash per line.
fn lines(files: &[u128]) -> String {
    let mut list = String::with_capacity(files.len() * 33);
    for hash in files {
        let _written = write!(list, "{}{hash:032x}", if list.is_empty() { "" } else { "\n" });
    }
    list
}

fn hash_of(list: &[u8]) -> String {
    blake3::hash(list).to_hex()[..32].to_owned()
}

/// The record of a pipeline, when later commits have only added rows.
async fn valid_record(uri: &str, dataset: &Dataset, pipeline: &str) -> Result<Option<Record>, SinkError> {
    let value = dataset.config().get(&key(pipeline));
    let Some(record) = value.and_then(|value| serde_json::from_str::<Record>(value).ok()) else { return Ok(None) };
    let kept = only_additions(uri, dataset, record.version, &BTreeSet::new()).await?;
    Ok(kept.then_some(record))
}

/// Whether every version after `since`, except the run's own, kept all existing rows.
async fn only_additions(uri: &str, dataset: &Dataset, since: u64, own: &BTreeSet<u64>) -> Result<bool, SinkError> {
    for version in (since + 1..=dataset.version_id()).filter(|version| !own.contains(version)) {
        match Box::pin(dataset.read_transaction_by_version(version)).await {
            Ok(Some(transaction)) if leaves_rows(&transaction) => {}
            Ok(Some(transaction)) if changes_columns_alone(uri, dataset, version, &transaction.operation).await? => {}
            // The transaction of a version that was cleaned up is unknown.
            Ok(_) | Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(SinkError::storage(uri, "reading the table's transactions")(error)),
        }
    }
    Ok(true)
}

fn leaves_rows(transaction: &Transaction) -> bool {
    match &transaction.operation {
        Operation::Append { .. }
        | Operation::Rewrite { .. }
        | Operation::CreateIndex { .. }
        | Operation::ReserveFragments { .. }
        | Operation::UpdateConfig { .. } => true,
        Operation::Update { updated_fragments, removed_fragment_ids, .. } => {
            updated_fragments.is_empty() && removed_fragment_ids.is_empty()
        }
        // A filled column of a head; any other program may have replaced the vectors.
        Operation::DataReplacement { .. } => {
            let properties = transaction.transaction_properties.as_ref();
            properties.is_some_and(|properties| properties.contains_key(properties::COLUMN))
        }
        _ => false,
    }
}

/// Whether a version only added columns, or removed those of a head or the map.
async fn changes_columns_alone(
    uri: &str,
    dataset: &Dataset,
    version: u64,
    operation: &Operation,
) -> Result<bool, SinkError> {
    if !matches!(operation, Operation::Merge { .. } | Operation::Project { .. }) {
        return Ok(false);
    }
    let before = match Box::pin(dataset.checkout_version(version - 1)).await {
        Ok(before) => before,
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(SinkError::storage(uri, "reading the table's versions")(error)),
    };
    let (Operation::Merge { schema, .. } | Operation::Project { schema, .. }) = operation else { return Ok(false) };
    let kept = before.schema().fields.iter().all(|field| {
        let computed =
            field.metadata.contains_key(HeadContract::METADATA_KEY) || field.metadata.contains_key(MAP_METADATA_KEY);
        computed || schema.fields.iter().any(|after| after.id == field.id && after.name == field.name)
    });
    let Operation::Merge { fragments, .. } = operation else { return Ok(kept) };
    let same = |before: &Fragment, after: &Fragment| {
        before.id == after.id
            && before.deletion_file == after.deletion_file
            && before.files.iter().all(|file| after.files.iter().any(|kept| kept.path == file.path))
    };
    let rows = before.fragments();
    Ok(kept && rows.len() == fragments.len() && rows.iter().zip(fragments).all(|(before, after)| same(before, after)))
}
