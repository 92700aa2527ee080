//! Iceberg tables as sources: one snapshot, whose data files are the files.
//!
//! A table is recognized in the listing of its folder, which has its metadata next to its data files. Those are not
//! read as they lie there: some are of older snapshots, and some have rows that were deleted.

use std::sync::Arc;

use object_store::path::Path;
use polylance_iceberg::{IcebergTable, is_metadata_file, newest_metadata_file};

use super::{
    Store,
    listing::{Listing, ListingBudget, Scope},
};
use crate::{
    error::{SourceError, TableKind},
    source::{
        file::{FileState, SourceFile},
        spec::{ROW_ID, SourceSpec},
    },
};

/// The folder of a table with its metadata.
const METADATA: &str = "/metadata";

/// The table whose metadata are in a listing, or else the files of the listing. That of the table may take `memory`
/// bytes.
pub(super) async fn or_files(store: Store, found: Listing, memory: u64) -> Result<(Store, Listing), SourceError> {
    let Some((address, metadata_file)) = metadata_of(&found)? else { return Ok((store, found)) };
    let opened = IcebergTable::open(&metadata_file).await;
    let table = opened.map_err(|error| SourceError::Table {
        uri: address.clone(),
        kind: TableKind::Iceberg,
        source: error.into(),
    })?;
    let prefix = format!("{address}#");
    let mut budget = ListingBudget::new(memory);
    let mut files = Vec::with_capacity(table.files().len());
    for (index, data) in table.files().iter().enumerate() {
        let file = SourceFile {
            uri: format!("{prefix}{}", data.name),
            path: Path::from(index.to_string()),
            size: data.size,
            state: Some(FileState { modified: None, e_tag: Some(data.tag.clone()), version: None }),
            unreadable: data.unreadable.clone(),
        };
        if !budget.reserve(&file) {
            return Err(budget.error(&address));
        }
        files.push(file);
    }
    if files.is_empty() {
        return Err(SourceError::EmptyTable { uri: address, kind: TableKind::Iceberg });
    }
    Ok((Store::Iceberg(Arc::new(table)), Listing { files, scope: Scope::Below(prefix), ..Listing::default() }))
}

/// The address of the table that a listing is of, and that of its newest metadata file.
fn metadata_of(found: &Listing) -> Result<Option<(String, String)>, SourceError> {
    match (&found.scope, found.files.as_slice()) {
        (Scope::One, [file]) if is_metadata_file(&file.uri) => {
            let folder = file.uri.rsplit_once('/').map_or("", |(folder, _)| folder);
            let table = folder.strip_suffix(METADATA).unwrap_or(&file.uri);
            Ok(Some((table.to_owned(), file.uri.clone())))
        }
        (Scope::Below(root), files) => {
            let address = root.trim_end_matches('/').to_owned();
            let folder = format!("{address}{METADATA}/");
            let names = files.iter().filter_map(|file| file.uri.strip_prefix(&folder)).map(str::to_owned);
            match newest_metadata_file(names.filter(|name| !name.contains('/'))) {
                Ok(newest) => Ok(newest.map(|name| (address, format!("{folder}{name}")))),
                Err(source) => Err(SourceError::NewestMetadata { uri: address, source }),
            }
        }
        _ => Ok(None),
    }
}

/// Refuses ids by position where rows are deleted: positions count the rows that are left.
pub(crate) fn check_row_ids(table: &IcebergTable, spec: &SourceSpec) -> Result<(), SourceError> {
    let has_column = table.schema().field_with_name(ROW_ID).is_ok();
    if spec.id == ROW_ID && !has_column && table.files().iter().any(|file| file.has_deletions) {
        return Err(SourceError::DeletedRows { uri: spec.address() });
    }
    Ok(())
}
