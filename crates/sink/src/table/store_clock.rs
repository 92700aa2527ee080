//! What time it is by the clock that the times of a store's objects are of.

use chrono::{DateTime, Utc};
use lance::io::ObjectStore;
use object_store::{ObjectStoreExt, PutPayload, Result, path::Path};
use uuid::Uuid;

/// The store's time: that of an object which is written into `folder` for it. A file is young or old by this clock; that
/// of this machine may be wrong.
pub(crate) async fn store_now(store: &ObjectStore, folder: &Path) -> Result<DateTime<Utc>> {
    let probe = folder.clone().join(format!("{}.time", Uuid::new_v4()));
    store.inner.put(&probe, PutPayload::new()).await?;
    let written = store.inner.head(&probe).await;
    // An object that stays is read by nobody.
    drop(store.inner.delete(&probe).await);
    Ok(written?.last_modified)
}
