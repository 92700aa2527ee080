//! One Lance transaction: rows come, older rows go, and the commit says who did it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::datatypes::Schema;
use lance::{
    Dataset,
    dataset::{
        CommitBuilder,
        transaction::{Operation, TransactionBuilder, UpdateMode},
    },
};
use lance_core::datatypes::{Field as LanceField, Schema as LanceSchema};
use lance_table::format::{
    Fragment,
    key_existence::{FilterType, KeyExistenceFilter},
};
use serde::{Deserialize, Serialize};

use crate::{SinkError, error::ColumnDifference, known_rows::RowAddresses, synced};

/// Commits the first version of a dataset. Never replaces one that is there.
///
/// Row ids stay Lance's default (not stable over compaction): a document's rows are always replaced whole,
/// nothing refers to a row id from one version to the next, and the table stays readable by older readers.
pub(crate) async fn create(
    uri: &str,
    schema: &Schema,
    fragments: Vec<Fragment>,
    properties: HashMap<String, String>,
) -> lance::Result<Dataset> {
    let schema = LanceSchema::try_from(schema)?;
    let operation = Operation::Overwrite { fragments, schema, config_upsert_values: None, initial_bases: None };
    let transaction = TransactionBuilder::new(0, operation).transaction_properties(Some(Arc::new(properties))).build();
    // Without retries an overwrite builds on version 0 and nothing else, which is not there once there is a table.
    match Box::pin(CommitBuilder::new(uri).with_session(synced::session()).with_max_retries(0).execute(transaction))
        .await
    {
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => {
            Err(lance::Error::dataset_already_exists(uri))
        }
        committed => committed,
    }
}

/// Whether a commit may pass over those that others have made since the version it builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Over those that touch none of its fragments: it brings no rows.
    Pass,
    /// Over none that brings rows, nor over an append: they may be the same documents. So no version has one twice, not
    /// even until a commit that settles it.
    Heed,
}

/// Commits a version of `dataset` with `fragments` added and the rows at `removed` taken away.
pub(crate) async fn change(
    dataset: &Dataset,
    fragments: Vec<Fragment>,
    removed: &RowAddresses,
    others: Others,
    properties: HashMap<String, String>,
) -> lance::Result<Dataset> {
    let (updated_fragments, removed_fragment_ids) = Box::pin(delete_rows(dataset, removed)).await?;
    let operation = Operation::Update {
        removed_fragment_ids,
        updated_fragments,
        new_fragments: fragments,
        fields_modified: vec![],
        compacted_sstables: vec![],
        // Every value of the new rows may be new: no index covers them until it is updated.
        fields_for_preserving_frag_bitmap: dataset.schema().fields_pre_order().map(|f| f.id as u32).collect(),
        update_mode: Some(UpdateMode::RewriteRows),
        inserted_rows_filter: (others == Others::Heed).then(|| claim(dataset)),
        updated_fragment_offsets: None,
    };
    let transaction = TransactionBuilder::new(dataset.version_id(), operation)
        .transaction_properties(Some(Arc::new(properties)))
        .build();
    Box::pin(CommitBuilder::new(Arc::new(dataset.clone())).execute(transaction)).await
}

/// What Lance compares of two commits that bring rows: keys of theirs, as its merge insert says which ones of the primary
/// key it brings. Here it is one key, the same for all. Two commits rarely cross, and then it costs the later one another
/// look at the table; the keys of all documents would cost every commit megabytes, in its transaction and in memory.
fn claim(dataset: &Dataset) -> KeyExistenceFilter {
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

/// The files of `fragments`, by which they are found again in a committed version.
pub(crate) fn file_names(fragments: &[Fragment]) -> HashSet<String> {
    fragments.iter().flat_map(|fragment| &fragment.files).map(|file| file.path.clone()).collect()
}

/// Whether the files of `fragments` are still there: a cleanup may have taken them for what a killed run left behind,
/// and a version that names a file that is gone cannot be read.
pub(crate) async fn check_files(uri: &str, fragments: &[Fragment]) -> Result<(), SinkError> {
    let looking = || SinkError::storage(uri, "looking for the data files");
    let (store, base) = synced::store(uri).await.map_err(looking())?;
    let data = base.join("data");
    for file in fragments.iter().flat_map(|fragment| &fragment.files) {
        if !store.exists(&data.clone().join(file.path.as_str())).await.map_err(looking())? {
            return Err(SinkError::FilesGone { uri: uri.to_owned(), file: file.path.clone() });
        }
    }
    Ok(())
}

/// A field of a data file: its id there, where it is in the schema, and its type in Lance's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenField {
    pub(crate) id: i32,
    pub(crate) path: String,
    pub(crate) kind: String,
}

/// The fields of a schema, those inside of others too.
pub(crate) fn written_fields(schema: &LanceSchema) -> Vec<WrittenField> {
    let mut all = Vec::new();
    let mut open: Vec<(String, &LanceField)> = schema.fields.iter().map(|field| (field.name.clone(), field)).collect();
    while let Some((path, field)) = open.pop() {
        open.extend(field.children.iter().map(|child| (format!("{path}\u{0}{}", child.name), child)));
        all.push(WrittenField { id: field.id, path, kind: field.logical_type.to_string() });
    }
    all
}

/// Gives the files of `fragments` the field ids of `dataset`. They were written as `written` says: for a table that was
/// not there yet, or of which a column was taken away and added again since. A file is read by its ids, not by its
/// names: under the ids of another schema its columns would come back as others.
///
/// # Errors
/// [`SinkError::SchemaMismatch`] when the table has no such column, or one of another type.
pub(crate) fn fit_field_ids(
    uri: &str,
    dataset: &Dataset,
    fragments: &mut [Fragment],
    written: &[WrittenField],
) -> Result<(), SinkError> {
    let table = written_fields(dataset.schema());
    let table: HashMap<&str, &WrittenField> = table.iter().map(|field| (field.path.as_str(), field)).collect();
    let written: HashMap<i32, &WrittenField> = written.iter().map(|field| (field.id, field)).collect();
    for file in fragments.iter_mut().flat_map(|fragment| &mut fragment.files) {
        let ids = file.fields.iter().map(|id| {
            let field = written.get(id).ok_or_else(|| SinkError::rows(uri, format!("a data file with field {id}")))?;
            match table.get(field.path.as_str()) {
                Some(found) if found.kind == field.kind => Ok(found.id),
                found => Err(SinkError::SchemaMismatch {
                    uri: uri.to_owned(),
                    columns: vec![ColumnDifference {
                        column: field.path.replace('\u{0}', "."),
                        table: found.map(|found| found.kind.clone()),
                        run: Some(field.kind.clone()),
                    }],
                }),
            }
        });
        let ids = ids.collect::<Result<Vec<i32>, SinkError>>()?;
        if ids != *file.fields {
            file.fields = ids.into();
        }
    }
    Ok(())
}
