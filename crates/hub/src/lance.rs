//! Tables on the hub, as Lance opens them.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use lance_core::Error;
use lance_io::object_store::{
    DEFAULT_CLOUD_IO_PARALLELISM, ObjectStore, ObjectStoreParams, ObjectStoreProvider, ObjectStoreRegistry,
};
use object_store::{ObjectStore as DynStore, path::Path};
use url::Url;

use crate::{
    address::{HubAddress, is_hub},
    error::HubError,
    store::HubStore,
};

/// The scheme of the hub in Lance's registry.
const SCHEME: &str = "hf";
/// How often Lance repeats a read that failed; the store has repeated its requests already.
const DOWNLOAD_RETRIES: usize = 1;

/// Lance's stores with the dataset of a table on the hub among them, at the present commit of its revision; `None` for a
/// table elsewhere. The table's files are listed here, so that a dataset that cannot be read is the error of this call.
///
/// # Errors
/// [`HubError`].
pub async fn table_stores(uri: &str) -> Result<Option<Arc<ObjectStoreRegistry>>, HubError> {
    if !is_hub(uri) {
        return Ok(None);
    }
    let address = HubAddress::parse(uri)?;
    let store = HubStore::open(&address).await?;
    store.load().await?;
    let stores = ObjectStoreRegistry::default();
    stores.insert(SCHEME, Arc::new(OneDataset { root: address.root(), store: Arc::new(store) }));
    Ok(Some(Arc::new(stores)))
}

/// Opens one dataset.
#[derive(Debug)]
struct OneDataset {
    root: String,
    store: Arc<dyn DynStore>,
}

fn address(url: &Url) -> lance_core::Result<HubAddress> {
    // Paths are written as they are; a URL has them encoded. The slashes of a revision stay encoded.
    let kept = url.path().replace("%2F", "%252F").replace("%2f", "%252F");
    let path = Path::from_url_path(kept).map_err(|error| Error::invalid_input(error.to_string()))?;
    let host = url.host_str().unwrap_or_default();
    HubAddress::parse(&format!("{SCHEME}://{host}/{path}")).map_err(|error| Error::invalid_input(error.to_string()))
}

#[async_trait]
impl ObjectStoreProvider for OneDataset {
    async fn new_store(&self, base: Url, params: &ObjectStoreParams) -> lance_core::Result<ObjectStore> {
        let root = address(&base)?.root();
        if root != self.root {
            return Err(Error::invalid_input(format!("the table at {} refers to files at {root}", self.root)));
        }
        let (block_size, wrapper) = (params.block_size, params.object_store_wrapper.clone());
        let parallel = DEFAULT_CLOUD_IO_PARALLELISM;
        let store = Arc::clone(&self.store);
        Ok(ObjectStore::new(store, base, block_size, wrapper, false, true, parallel, DOWNLOAD_RETRIES, None))
    }

    fn extract_path(&self, url: &Url) -> lance_core::Result<Path> {
        Path::parse(address(url)?.path()).map_err(|error| Error::invalid_input(error.to_string()))
    }

    fn calculate_object_store_prefix(
        &self,
        url: &Url,
        _: Option<&HashMap<String, String>>,
    ) -> lance_core::Result<String> {
        Ok(address(url)?.root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_keeps_the_slashes_of_its_revision() {
        for (uri, revision, path) in [
            ("hf://datasets/org/news@feature%2Fx/docs.lance", "feature/x", "docs.lance"),
            ("hf://datasets/org/news@feature%2fx/a b/docs.lance", "feature/x", "a b/docs.lance"),
            ("hf://datasets/org/news@refs/pr/1/docs.lance", "refs/pr/1", "docs.lance"),
        ] {
            let address = address(&Url::parse(uri).unwrap()).unwrap();
            assert_eq!((address.revision(), address.path()), (revision, path), "{uri}");
        }
    }
}
