//! A store that syncs local files to the disk before it confirms them.
//!
//! An object store keeps what it has confirmed. A local file that is written and renamed is not yet on the disk: after
//! a power loss its name may exist without its bytes. Lance bypasses the object store's interface for local files and
//! syncs none of them. This store sends them through that interface, which syncs each file and the changed folders
//! before it confirms: data files before the manifest that refers to them, because Lance writes the manifest last, and
//! the manifest before the commit returns. Reads outside of writers still bypass the interface.

use std::sync::{Arc, LazyLock};

use lance::{
    dataset::{DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE},
    io::{ObjectStore, ObjectStoreParams, ObjectStoreRegistry},
    session::Session,
};
use lance_io::object_store::{ObjectStoreProvider, providers::local::FileStoreProvider};
use object_store::{local::LocalFileSystem, path::Path};
use url::Url;

/// Marks the paths of this store, so that Lance does not write them directly.
const SYNCED_STORE_PREFIX: &str = "file$synced";

/// The stores of writers, by scheme.
static SYNCED_STORES: LazyLock<Arc<ObjectStoreRegistry>> = LazyLock::new(|| {
    let stores = ObjectStoreRegistry::default();
    stores.insert("file", Arc::new(SyncedFiles));
    Arc::new(stores)
});

#[derive(Debug)]
struct SyncedFiles;

#[async_trait::async_trait]
impl ObjectStoreProvider for SyncedFiles {
    async fn new_store(&self, base: Url, params: &ObjectStoreParams) -> lance::Result<ObjectStore> {
        let mut store = FileStoreProvider.new_store(base, params).await?;
        // A Windows share keeps its own root.
        if store.has_direct_local_paths() {
            store.inner = Arc::new(LocalFileSystem::new().with_fsync(true));
            #[cfg(test)]
            {
                store.inner = crate::tests::table::durability::Recorded::store(store.inner);
            }
            SYNCED_STORE_PREFIX.clone_into(&mut store.store_prefix);
        }
        Ok(store)
    }

    fn extract_path(&self, url: &Url) -> lance::Result<Path> {
        FileStoreProvider.extract_path(url)
    }

    fn calculate_object_store_prefix(
        &self,
        url: &Url,
        options: Option<&std::collections::HashMap<String, String>>,
    ) -> lance::Result<String> {
        let prefix = FileStoreProvider.calculate_object_store_prefix(url, options)?;
        Ok(if prefix == url.scheme() { SYNCED_STORE_PREFIX.to_owned() } else { prefix })
    }
}

/// A session for one writer, whose files are synced. Sessions share no cache, because a table may be removed and
/// created again at the same address.
pub(crate) fn session() -> Arc<Session> {
    Arc::new(Session::new(DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, Arc::clone(&SYNCED_STORES)))
}

/// The store of an address and the path in it, for writing.
pub(crate) async fn store(uri: &str) -> lance::Result<(Arc<ObjectStore>, Path)> {
    ObjectStore::from_uri_and_params(Arc::clone(&SYNCED_STORES), uri, &ObjectStoreParams::default()).await
}
