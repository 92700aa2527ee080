//! One Lance transaction: it adds rows, deletes older ones, and records who made it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::Schema};
use lance::{
    Dataset,
    dataset::{
        CommitBuilder,
        transaction::{Operation, TransactionBuilder, UpdateMode},
    },
};
use lance_core::datatypes::Schema as LanceSchema;
use lance_table::format::{
    Fragment,
    key_existence::{FilterType, KeyExistenceFilter},
};

use super::known_rows::RowAddresses;
use crate::{error::SinkError, table::synced_store, write::window::Window};

/// Commits the first version of a dataset. Never replaces a dataset that exists.
///
/// Row ids stay Lance's default (not stable over compaction): a document's rows are always replaced whole,
/// nothing refers to a row id from one version to the next, and the table stays readable by older readers.
pub(crate) async fn commit_first_version(
    uri: &str,
    schema: &Schema,
    fragments: Vec<Fragment>,
    properties: HashMap<String, String>,
) -> lance::Result<Dataset> {
    let schema = LanceSchema::try_from(schema)?;
    let operation = Operation::Overwrite { fragments, schema, config_upsert_values: None, initial_bases: None };
    let transaction = TransactionBuilder::new(0, operation).transaction_properties(Some(Arc::new(properties))).build();
    // Without retries an overwrite builds on version 0 only, which does not exist once there is a table.
    match Box::pin(
        CommitBuilder::new(uri).with_session(synced_store::session()).with_max_retries(0).execute(transaction),
    )
    .await
    {
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => {
            Err(lance::Error::dataset_already_exists(uri))
        }
        committed => committed,
    }
}

/// Which commits a transaction tolerates between the version that it builds on and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConcurrentWrites {
    /// Those that touch none of its fragments: it adds no rows.
    AllowDisjoint,
    /// None that adds rows, because they may be the same documents. So no version ever contains a document twice.
    Reject,
}

/// Commits a version of `dataset` with `fragments` added and the rows at `removed` deleted.
pub(crate) async fn commit_update(
    dataset: &Dataset,
    fragments: Vec<Fragment>,
    removed: &RowAddresses,
    concurrent_writes: ConcurrentWrites,
    properties: HashMap<String, String>,
) -> lance::Result<Dataset> {
    let (updated_fragments, removed_fragment_ids) = Box::pin(delete_rows(dataset, removed)).await?;
    let operation = Operation::Update {
        removed_fragment_ids,
        updated_fragments,
        new_fragments: fragments,
        fields_modified: vec![],
        compacted_sstables: vec![],
        // All values of the new rows may be new: no index covers them until it is updated.
        fields_for_preserving_frag_bitmap: dataset.schema().fields_pre_order().map(|f| f.id as u32).collect(),
        update_mode: Some(UpdateMode::RewriteRows),
        inserted_rows_filter: (concurrent_writes == ConcurrentWrites::Reject).then(|| conflict_key_filter(dataset)),
        updated_fragment_offsets: None,
    };
    let transaction = TransactionBuilder::new(dataset.version_id(), operation)
        .transaction_properties(Some(Arc::new(properties)))
        .build();
    Box::pin(CommitBuilder::new(Arc::new(dataset.clone())).execute(transaction)).await
}

/// The keys by which Lance recognizes that two commits add the same rows, in the form in which its merge insert lists
/// the primary keys that it inserts. Here it is one key, the same for all commits, so that any two conflict. Two
/// commits rarely cross, and then the later one reads the table again; the keys of all documents would cost every
/// commit megabytes, in its transaction and in memory.
fn conflict_key_filter(dataset: &Dataset) -> KeyExistenceFilter {
    let field_ids = dataset.schema().fields.first().map(|field| field.id).into_iter().collect();
    KeyExistenceFilter { field_ids, filter: FilterType::ExactSet(HashSet::from([0])) }
}

/// Writes deletion files; returns the fragments that have rows left, and the ids of those that have none.
async fn delete_rows(dataset: &Dataset, removed: &RowAddresses) -> lance::Result<(Vec<Fragment>, Vec<u64>)> {
    let (mut updated, mut emptied) = (Vec::new(), Vec::new());
    if removed.is_empty() {
        return Ok((updated, emptied));
    }
    for fragment in dataset.get_fragments() {
        let id = fragment.id();
        let Some(rows) = removed.get(&(id as u32)) else { continue };
        match Box::pin(fragment.extend_deletions(rows.iter().copied())).await? {
            Some(fragment) => updated.push(fragment.metadata().clone()),
            None => emptied.push(id as u64),
        }
    }
    Ok((updated, emptied))
}

/// The names of the files of `fragments`, which identify them in a committed version.
pub(crate) fn file_names(fragments: &[Fragment]) -> HashSet<String> {
    fragments.iter().flat_map(|fragment| &fragment.files).map(|file| file.path.clone()).collect()
}

/// Refuses fragments of which a file is gone: a cleanup may have taken it for a file that a killed run left behind, and
/// a version that refers to a missing file cannot be read.
pub(crate) async fn check_files(uri: &str, fragments: &[Fragment]) -> Result<(), SinkError> {
    let looking = || SinkError::storage(uri, "looking for the data files");
    let (store, base) = synced_store::store(uri).await.map_err(looking())?;
    let data = base.join("data");
    for file in fragments.iter().flat_map(|fragment| &fragment.files) {
        if !store.exists(&data.clone().join(file.path.as_str())).await.map_err(looking())? {
            return Err(SinkError::FilesGone { uri: uri.to_owned(), file: file.path.clone() });
        }
    }
    Ok(())
}

/// Whether all data files of windows, which are batches of [`window_schema`](crate::window_schema), are still there.
///
/// # Errors
/// [`SinkError::Storage`], or when the batches are damaged.
pub async fn data_files_exist(uri: &str, windows: &[RecordBatch]) -> datafusion::error::Result<bool> {
    for batch in windows {
        for window in Window::from_batch(batch)? {
            match check_files(uri, &window.fragments).await {
                Ok(()) => {}
                Err(SinkError::FilesGone { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(true)
}
