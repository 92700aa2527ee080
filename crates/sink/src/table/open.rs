//! Opens Lance datasets that may not exist yet.

use std::{panic::AssertUnwindSafe, path::Path, sync::Arc};

use futures::FutureExt;
use lance::{
    Dataset,
    dataset::{DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, builder::DatasetBuilder},
    session::Session,
};
use polylance_hub::{is_hub, table_stores};

use super::{manifests::find_damage, synced_store};
use crate::error::SinkError;

/// Folders that Lance itself creates. A run that is killed before its first commit leaves some of them behind.
const LANCE_FOLDERS: [&str; 6] = ["data", "_transactions", "_versions", "_deletions", "_indices", "_refs"];

/// The latest version of the dataset at `uri`, for writing; `None` when nothing has been committed there.
pub(crate) async fn latest(uri: &str) -> Result<Option<Dataset>, SinkError> {
    refuse_hub(uri)?;
    load(uri, DatasetBuilder::from_uri(uri).with_session(synced_store::session())).await
}

/// As [`latest`], for reading: also a table on the hub.
pub(super) async fn latest_anywhere(uri: &str) -> Result<Option<Dataset>, SinkError> {
    let Some(stores) = table_stores(uri).await? else { return latest(uri).await };
    let session = Session::new(DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, stores);
    match Box::pin(DatasetBuilder::from_uri(uri).with_session(Arc::new(session)).load()).await {
        Ok(dataset) => Ok(Some(dataset)),
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(SinkError::storage(uri, "opening the table")(error)),
    }
}

/// An error for a table on the hub, to which nothing is written.
pub(crate) fn refuse_hub(uri: &str) -> Result<(), SinkError> {
    if is_hub(uri) { Err(SinkError::OnHub { uri: uri.to_owned() }) } else { Ok(()) }
}

/// The latest version of the dataset at `uri`, for writing.
///
/// # Errors
/// [`SinkError::NoTable`] when nothing has been committed there, and as [`latest`].
pub(crate) async fn existing(uri: &str) -> Result<Dataset, SinkError> {
    latest(uri).await?.ok_or_else(|| SinkError::NoTable { uri: uri.to_owned() })
}

/// As [`latest`], for reading and removing: nothing that is written through it is synced.
pub(crate) async fn latest_unsynced(uri: &str) -> Result<Option<Dataset>, SinkError> {
    refuse_hub(uri)?;
    load(uri, DatasetBuilder::from_uri(uri)).await
}

async fn load(uri: &str, builder: DatasetBuilder) -> Result<Option<Dataset>, SinkError> {
    if is_local_file(uri) {
        return Err(SinkError::NotATable { uri: uri.to_owned(), found: "a file".to_owned() });
    }
    // Lance does not check the numbers in a truncated manifest, and may panic.
    let loaded = AssertUnwindSafe(Box::pin(builder.load())).catch_unwind().await;
    match loaded.unwrap_or_else(|_| Err(lance::Error::corrupt_file_named(uri, "a panic over the newest manifest"))) {
        Ok(dataset) => Ok(Some(dataset)),
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => {
            Box::pin(refuse_foreign(uri)).await?;
            Ok(None)
        }
        Err(error) => Err(match Box::pin(find_damage(uri)).await {
            Some(damaged) => damaged,
            None => SinkError::storage(uri, "opening the table")(error),
        }),
    }
}

fn is_local_file(uri: &str) -> bool {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    !path.contains("://") && Path::new(path).is_file()
}

/// An error when `uri` has something else than the beginning of a Lance dataset.
async fn refuse_foreign(uri: &str) -> Result<(), SinkError> {
    let storage = || SinkError::storage(uri, "looking for the table");
    let (store, path) = synced_store::store(uri).await.map_err(storage())?;
    let entries = match store.read_dir(path).await {
        Ok(entries) => entries,
        Err(lance::Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(storage()(error)),
    };
    match entries.into_iter().find(|entry| !LANCE_FOLDERS.contains(&entry.as_str())) {
        Some(entry) => Err(SinkError::NotATable { uri: uri.to_owned(), found: format!("`{entry}`") }),
        None => Ok(()),
    }
}
