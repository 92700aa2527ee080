//! Remembers in the table which files of a source it has all of, so that an unchanged file need not be read again.
//!
//! The record is an entry of the table's configuration: it is committed like rows are, goes where the table goes,
//! and is gone when the table is made anew. It holds as long as nothing but additions came after it. Rows that
//! anyone deletes or replaces end it, and the next run compares row by row. A long list of files would be written
//! again with every version of the table, so it stands in `docs.sources/` beside `docs.lance`, under its hash.

use std::{
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
        retry::{Attempts, is_conflict},
    },
    error::SinkError,
    table::{
        Table, open,
        sidecar::{Beside, beside},
    },
};

/// What a run knows when it has come to its source's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What was embedded, and how: [`properties::PIPELINE`].
    pub pipeline: String,
    /// A hash of the source's files as they were then; `None` when the table lacks rows of them.
    pub source: Option<String>,
    /// A hash of each file of which the table has all rows, in rising order.
    pub files: Vec<u128>,
    /// Rows of the source.
    pub rows: u64,
    /// The table's version when the run began; `None` when there was none.
    pub since: Option<u64>,
    /// Versions that the run itself made.
    pub own: BTreeSet<u64>,
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
    /// Rows of the source, when a run of this pipeline has finished these files and the table has lost nothing since.
    ///
    /// # Errors
    /// [`SinkError::Storage`].
    pub async fn finished(&self, pipeline: &str, source: &str) -> Result<Option<u64>, SinkError> {
        let record = standing(self.uri(), self.dataset(), pipeline).await?;
        Ok(record.filter(|record| record.source.as_deref() == Some(source)).map(|record| record.rows))
    }

    /// Hashes of the files of which the table has all rows by this pipeline, and has lost none since.
    ///
    /// # Errors
    /// [`SinkError::Storage`].
    pub async fn finished_files(&self, pipeline: &str) -> Result<HashSet<u128>, SinkError> {
        let Some(record) = standing(self.uri(), self.dataset(), pipeline).await? else { return Ok(HashSet::new()) };
        let Some(hash) = record.files else { return Ok(HashSet::new()) };
        let list = lists(self.uri()).await?.read(&list_name(&hash)).await?;
        // A list that another run has replaced is not missed: its files are read.
        let list = list.filter(|list| hash_of(list) == hash).unwrap_or_default();
        let hashes = String::from_utf8_lossy(&list);
        Ok(hashes.lines().filter_map(|hash| u128::from_str_radix(hash, 16).ok()).collect())
    }
}

/// Writes into the table at `uri` which files it has all of; returns the version that says so. `None` when the table
/// says so already, or when another writer took rows away meanwhile.
///
/// # Errors
/// [`SinkError::Storage`], [`SinkError::Conflict`] when other writers keep changing the same entry.
pub async fn finish(uri: &str, run: &Finished) -> Result<Option<u64>, SinkError> {
    let mut attempts = Attempts::default();
    loop {
        match Box::pin(try_finish(uri, run)).await {
            // Another run of the same pipeline ended at the same moment.
            Err(SinkError::Storage { source, .. }) if is_conflict(&source) => attempts.conflict(uri, source).await?,
            ended => return ended,
        }
    }
}

async fn try_finish(uri: &str, run: &Finished) -> Result<Option<u64>, SinkError> {
    let Some(mut dataset) = open::latest(uri).await? else { return Ok(None) };
    // Of a source of one file its own hash says it all.
    let listed = run.files.len() > usize::from(run.source.is_some());
    let list = listed.then(|| lines(&run.files));
    let files = list.as_ref().map(|list| hash_of(list.as_bytes()));
    let before = standing(uri, &dataset, &run.pipeline).await?;
    let said = match &before {
        Some(record) => record.source == run.source && record.files == files,
        None => run.source.is_none() && files.is_none(),
    };
    if said || !only_additions(uri, &dataset, run.since.unwrap_or_default(), &run.own).await? {
        return Ok(None);
    }
    if let (Some(hash), Some(list)) = (&files, list) {
        lists(uri).await?.write(&list_name(hash), list.into_bytes()).await?;
    }
    let (source, rows, version) = (run.source.clone(), run.rows, dataset.version_id());
    let record = Record { source, files, rows, version };
    let value = serde_json::to_string(&record).map_err(|error| SinkError::rows(uri, error.to_string()))?;
    let written = Box::pin(dataset.update_config([(key(&run.pipeline), value)]).into_future()).await;
    written.map_err(SinkError::storage(uri, "noting which files are finished"))?;
    if let Some(old) = before.and_then(|before| before.files).filter(|old| record.files.as_ref() != Some(old)) {
        lists(uri).await?.remove(&list_name(&old)).await;
    }
    Ok(Some(dataset.version_id()))
}

fn key(pipeline: &str) -> String {
    format!("polylance.finished.{pipeline}")
}

async fn lists(uri: &str) -> Result<Beside, SinkError> {
    Beside::open(beside(uri, "sources"), "keeping the list of finished files").await
}

fn list_name(hash: &str) -> String {
    format!("{hash}.txt")
}

/// A hash a line.
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

/// The record of a pipeline, when nothing was taken from the table since.
async fn standing(uri: &str, dataset: &Dataset, pipeline: &str) -> Result<Option<Record>, SinkError> {
    let value = dataset.config().get(&key(pipeline));
    let Some(record) = value.and_then(|value| serde_json::from_str::<Record>(value).ok()) else { return Ok(None) };
    let kept = only_additions(uri, dataset, record.version, &BTreeSet::new()).await?;
    Ok(kept.then_some(record))
}

/// Whether every version after `since`, but the run's own, left all rows that there were.
async fn only_additions(uri: &str, dataset: &Dataset, since: u64, own: &BTreeSet<u64>) -> Result<bool, SinkError> {
    for version in (since + 1..=dataset.version_id()).filter(|version| !own.contains(version)) {
        match Box::pin(dataset.read_transaction_by_version(version)).await {
            Ok(Some(transaction)) if leaves_rows(&transaction) => {}
            Ok(Some(transaction)) if changes_columns_alone(uri, dataset, version, &transaction.operation).await? => {}
            // A version that was cleaned up does not tell what it did.
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
        // A head's column that was filled; anyone else may have replaced the vectors.
        Operation::DataReplacement { .. } => {
            let properties = transaction.transaction_properties.as_ref();
            properties.is_some_and(|properties| properties.contains_key(properties::COLUMN))
        }
        _ => false,
    }
}

/// Whether a version added columns, or removed those of a head or the map, and left rows and all other columns.
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
