//! The time by the clock of a store.

use chrono::{DateTime, Utc};
use lance::io::ObjectStore;
use object_store::{ObjectStoreExt, PutPayload, Result, path::Path};
use uuid::Uuid;

/// The store's time: the modification time of an object that is written to `folder` for this purpose. The age of a file
/// is measured by this clock, because the clock of this machine may be wrong.
pub(crate) async fn store_now(store: &ObjectStore, folder: &Path) -> Result<DateTime<Utc>> {
    let probe = folder.clone().join(format!("{}.time", Uuid::new_v4()));
    store.inner.put(&probe, PutPayload::new()).await?;
    let written = store.inner.head(&probe).await;
    // Nothing reads an object that stays.
    drop(store.inner.delete(&probe).await);
    Ok(written?.last_modified)
}
