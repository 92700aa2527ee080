//! Local files that are on the disk before they count.
//!
//! An object store keeps what it has confirmed. A local file that is written and renamed is not yet on the disk: after
//! a power loss its name may be there without its bytes. Lance writes local files past the object store's interface and
//! syncs none of them. Here the local store is one whose files go through that interface, which syncs each file and the
//! folders that changed before it confirms: data files before the manifest that names them, since Lance writes the
//! manifest last, and the manifest before the commit returns. Reads outside of writers keep Lance's direct way.

use std::sync::{Arc, LazyLock};

use lance::{
    dataset::{DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE},
    io::{ObjectStore, ObjectStoreParams, ObjectStoreRegistry},
    session::Session,
};
use lance_io::object_store::{ObjectStoreProvider, providers::local::FileStoreProvider};
use object_store::{local::LocalFileSystem, path::Path};
use url::Url;

/// Tells Lance that a path of this store is not one that it may write by itself.
const PREFIX: &str = "file$synced";

/// Where writers find the store of an address.
static STORES: LazyLock<Arc<ObjectStoreRegistry>> = LazyLock::new(|| {
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
            PREFIX.clone_into(&mut store.store_prefix);
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
        Ok(if prefix == url.scheme() { PREFIX.to_owned() } else { prefix })
    }
}

/// A session for one writer: what it writes is on the disk. Nothing is cached from one to the next, for a table may be
/// removed and made anew under the same address.
pub(crate) fn session() -> Arc<Session> {
    Arc::new(Session::new(DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, Arc::clone(&STORES)))
}

/// The store of an address, and the path in it, for writing.
pub(crate) async fn store(uri: &str) -> lance::Result<(Arc<ObjectStore>, Path)> {
    ObjectStore::from_uri_and_params(Arc::clone(&STORES), uri, &ObjectStoreParams::default()).await
}
