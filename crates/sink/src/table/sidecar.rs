//! Objects next to a table: their addresses, and small objects in a folder.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use lance::io::ObjectStore;
use object_store::{ObjectStoreExt, PutMode, path::Path};

use super::synced_store;
use crate::error::SinkError;

/// The address next to the table at `table_uri` with the table's name and a suffix: `docs.lease` next to `docs.lance`.
pub(crate) fn sidecar_uri(table_uri: &str, suffix: &str) -> String {
    let table = table_uri.trim_end_matches('/');
    format!("{}.{suffix}", table.strip_suffix(".lance").unwrap_or(table))
}

/// The address of the quarantine of the table at `table_uri`.
///
/// ```
/// use polylance_sink::quarantine_uri;
/// assert_eq!(quarantine_uri("s3://corpus/docs.lance"), "s3://corpus/docs.quarantine.lance");
/// assert_eq!(quarantine_uri("out/docs/"), "out/docs.quarantine.lance");
/// ```
pub fn quarantine_uri(table_uri: &str) -> String {
    sidecar_uri(table_uri, "quarantine.lance")
}

/// The address of the lease of the table at `table_uri`.
///
/// ```
/// use polylance_sink::lease_uri;
/// assert_eq!(lease_uri("s3://corpus/docs.lance"), "s3://corpus/docs.lease");
/// ```
pub fn lease_uri(table_uri: &str) -> String {
    sidecar_uri(table_uri, "lease")
}

/// A folder next to a table, and the action that errors of its store name.
#[derive(Debug)]
pub(crate) struct Sidecar {
    uri: String,
    store: Arc<ObjectStore>,
    folder: Path,
    action: &'static str,
}

impl Sidecar {
    pub(crate) async fn open(uri: String, action: &'static str) -> Result<Self, SinkError> {
        match synced_store::store(&uri).await {
            Ok((store, folder)) => Ok(Self { uri, store, folder, action }),
            Err(error) => Err(SinkError::storage(&uri, action)(error)),
        }
    }

    /// The object's bytes; `None` when there is none.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SinkError> {
        let read = async { self.store.inner.get(&self.path(name)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes the object, or replaces it.
    pub(crate) async fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), SinkError> {
        let written = self.store.inner.put(&self.path(name), bytes.into()).await;
        written.map(drop).map_err(|error| self.failed(error))
    }

    /// Writes the object, unless there is one. Without conditional writes, the last one of several stays.
    pub(crate) async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<(), SinkError> {
        let created = self.store.inner.put_opts(&self.path(name), bytes.clone().into(), PutMode::Create.into()).await;
        match created {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(object_store::Error::NotImplemented { .. }) => self.write(name, bytes).await,
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Removes the objects of the folder, and of those in it, that were written before a time.
    pub(crate) async fn remove_older(&self, time: DateTime<Utc>) -> Result<(), SinkError> {
        let mut objects = self.store.inner.list(Some(&self.folder));
        loop {
            match objects.try_next().await {
                Ok(Some(object)) if object.last_modified < time => {
                    drop(self.store.inner.delete(&object.location).await);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Removes the object. Nothing reads an object that stays because the store failed.
    pub(crate) async fn remove(&self, name: &str) {
        drop(self.store.inner.delete(&self.path(name)).await);
    }

    fn path(&self, name: &str) -> Path {
        self.folder.clone().join(name)
    }

    fn failed(&self, error: object_store::Error) -> SinkError {
        SinkError::storage(&self.uri, self.action)(error.into())
    }
}
