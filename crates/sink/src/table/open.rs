//! Opens Lance datasets that may not exist yet.

use std::{panic::AssertUnwindSafe, path::Path};

use futures::FutureExt;
use lance::{Dataset, dataset::builder::DatasetBuilder};

use super::{manifests::find_damage, synced_store};
use crate::error::SinkError;

/// Folders that Lance itself creates. A run that is killed before its first commit leaves some of them behind.
const LANCE_FOLDERS: [&str; 6] = ["data", "_transactions", "_versions", "_deletions", "_indices", "_refs"];

/// The latest version of the dataset at `uri`, for writing; `None` when nothing has been committed there.
pub(crate) async fn latest(uri: &str) -> Result<Option<Dataset>, SinkError> {
    load(uri, DatasetBuilder::from_uri(uri).with_session(synced_store::session())).await
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
