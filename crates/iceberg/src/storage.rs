//! Object stores as the storage of the crate `iceberg`, for reading only.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use iceberg::{
    Error, ErrorKind, Result,
    io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory},
};
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path};
use serde::{Deserialize, Serialize};

/// The stores of a table's files, opened like those of any other source: one set of keys and endpoints serves both.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stores {
    /// The stores that are open, by scheme and bucket.
    #[serde(skip)]
    open: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
}

impl Stores {
    /// The store of an address, and the path in it.
    pub(crate) async fn open(&self, address: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let (root, key) = split(address)?;
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&root).cloned();
        let store = if let Some(store) = known {
            store
        } else {
            let store = open_root(&root).await?;
            self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(root.clone(), Arc::clone(&store));
            store
        };
        let path = if root.is_empty() {
            Path::from_absolute_path(&key).map_err(|error| failed("the path is invalid", error))?
        } else {
            Path::parse(&key).map_err(|error| failed("the key is invalid", error))?
        };
        Ok((store, path))
    }
}

/// The store of a scheme and a bucket; without them, the disks of this machine.
async fn open_root(root: &str) -> Result<Arc<dyn ObjectStore>> {
    if root.is_empty() {
        return Ok(Arc::new(LocalFileSystem::new()));
    }
    let opened = lance_io::object_store::ObjectStore::from_uri(root).await;
    let (store, _) = opened.map_err(|error| failed("the store cannot be opened", error))?;
    Ok(Arc::clone(&store.inner))
}

/// The scheme and the bucket of an address, and the key; no scheme for a path on this machine.
fn split(address: &str) -> Result<(String, String)> {
    let Some((scheme, rest)) = address.split_once("://") else {
        // Java writes `file:/path`.
        let path = address.strip_prefix("file:").unwrap_or(address);
        return Ok((String::new(), path.to_owned()));
    };
    let scheme = match scheme {
        "file" => return Ok((String::new(), rest.strip_prefix("localhost").unwrap_or(rest).to_owned())),
        // Hadoop's names for S3.
        "s3a" | "s3n" => "s3",
        "s3" | "gs" | "az" | "abfss" => scheme,
        scheme => {
            let message = format!("`{address}`: the scheme `{scheme}://` is not supported");
            return Err(Error::new(ErrorKind::FeatureUnsupported, message));
        }
    };
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((format!("{scheme}://{bucket}"), key.to_owned()))
}

fn failed(message: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unexpected, message).with_source(error)
}

fn cannot_read(address: &str, error: object_store::Error) -> Error {
    failed(&format!("`{address}` cannot be read"), error)
}

fn read_only<T>() -> Result<T> {
    Err(Error::new(ErrorKind::FeatureUnsupported, "a source is only read"))
}

#[async_trait]
#[typetag::serde]
impl Storage for Stores {
    async fn exists(&self, path: &str) -> Result<bool> {
        let (store, key) = self.open(path).await?;
        match store.head(&key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(cannot_read(path, error)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let (store, key) = self.open(path).await?;
        let meta = store.head(&key).await.map_err(|error| cannot_read(path, error))?;
        Ok(FileMetadata { size: meta.size })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let (store, key) = self.open(path).await?;
        let bytes = async { store.get(&key).await?.bytes().await }.await;
        bytes.map_err(|error| cannot_read(path, error))
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        let (store, key) = self.open(path).await?;
        Ok(Box::new(Object { store, key, address: path.to_owned() }))
    }

    async fn write(&self, _: &str, _: Bytes) -> Result<()> {
        read_only()
    }

    async fn writer(&self, _: &str) -> Result<Box<dyn FileWrite>> {
        read_only()
    }

    async fn delete(&self, _: &str) -> Result<()> {
        read_only()
    }

    async fn delete_prefix(&self, _: &str) -> Result<()> {
        read_only()
    }

    async fn delete_stream(&self, _: BoxStream<'static, String>) -> Result<()> {
        read_only()
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, _: &str) -> Result<OutputFile> {
        read_only()
    }
}

#[typetag::serde]
impl StorageFactory for Stores {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

/// An object whose ranges are read.
struct Object {
    store: Arc<dyn ObjectStore>,
    key: Path,
    address: String,
}

#[async_trait]
impl FileRead for Object {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.key, range).await.map_err(|error| cannot_read(&self.address, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_engines_write_them_are_split_into_store_and_key() {
        for (address, root, key) in [
            ("s3a://b/t/data/a%20b.parquet", "s3://b", "t/data/a%20b.parquet"),
            ("gs://b/t", "gs://b", "t"),
            ("abfss://c@host/t/x", "abfss://c@host", "t/x"),
            ("file:///t/x y", "", "/t/x y"),
            ("file:/t/x", "", "/t/x"),
            ("/t/x", "", "/t/x"),
        ] {
            assert_eq!(split(address).unwrap(), (root.to_owned(), key.to_owned()), "{address}");
        }
        assert!(split("hdfs://host/t").unwrap_err().to_string().contains("`hdfs://` is not supported"));
    }

    #[tokio::test]
    async fn a_file_of_this_machine_is_read_and_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b%20.txt");
        std::fs::write(&path, "0123456789").unwrap();
        let (stores, path) = (Stores::default(), path.to_str().unwrap());
        assert!(stores.exists(path).await.unwrap() && !stores.exists("/no/such/file").await.unwrap());
        assert_eq!(stores.metadata(path).await.unwrap().size, 10);
        assert_eq!(stores.read(path).await.unwrap(), "0123456789");
        assert_eq!(stores.reader(path).await.unwrap().read(2..4).await.unwrap(), "23");
        assert!(stores.write(path, Bytes::new()).await.is_err() && stores.delete(path).await.is_err());
        let missing = stores.read("/no/such/file").await.unwrap_err();
        let cause = std::error::Error::source(&missing).unwrap();
        assert!(matches!(cause.downcast_ref(), Some(object_store::Error::NotFound { .. })), "{missing}");
    }
}
