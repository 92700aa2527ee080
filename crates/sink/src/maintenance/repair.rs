//! A newest version that cannot be read, as a power loss leaves it on a disk.
//!
//! Lance finds the latest version by the name of its manifest and never looks past one that is empty or cut short. Such
//! a manifest is set aside under another name, after which the version before is the latest. Nothing is deleted.

use std::collections::HashMap;

use lance::{dataset::builder::DatasetBuilder, io::ObjectStore};
use lance_table::format::pb;
use object_store::{ObjectStoreExt as _, path::Path};
use prost::Message;
use serde::Serialize;

use crate::{
    commit::properties,
    error::SinkError,
    table::{
        manifests::{self, damaged, newest, shown},
        synced_store,
    },
};

/// What is put behind the name of a manifest that is set aside.
const ASIDE: &str = ".damaged";

/// A manifest that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// The version that could not be read.
    pub version: u64,
    /// Its manifest, under the name it has now.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
    /// What the version was: each transaction that was made on the version before it. More than one when others were in
    /// its way.
    pub transactions: Vec<String>,
    /// The version that is the latest now.
    pub current: u64,
    /// When that one was committed, by the clock of who did.
    pub committed: chrono::DateTime<chrono::Utc>,
    /// Its rows.
    pub rows: u64,
}

/// Sets the manifest of the newest version of the table at `uri` aside when it is damaged; `None` when it is whole, or
/// there is no table.
///
/// # Errors
/// [`SinkError::Damaged`] when the version before is damaged too, or there is none; [`SinkError::Storage`].
pub async fn repair(uri: &str) -> Result<Option<Repaired>, SinkError> {
    let repairing = || SinkError::storage(uri, "repairing the table");
    let (store, base) = synced_store::store(uri).await.map_err(repairing())?;
    let manifests = newest(&store, &base).await.map_err(repairing())?;
    let Some(head) = manifests.first() else { return Ok(None) };
    let Some(problem) = manifests::problem(&store, head).await.map_err(repairing())? else { return Ok(None) };
    let Some(before) = manifests.get(1) else {
        return Err(damaged(uri, &store, head, format!("{problem}, and there is no version before it")));
    };
    if let Some(earlier) = manifests::problem(&store, before).await.map_err(repairing())? {
        let file = shown(&store, &before.path);
        return Err(damaged(
            uri,
            &store,
            head,
            format!("{problem}, and so is the version before it: {file} {earlier}"),
        ));
    }
    let load = DatasetBuilder::from_uri(uri).with_version(before.version).load();
    let dataset = Box::pin(load).await.map_err(repairing())?;
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(repairing())? as u64;
    let transactions = transactions(&store, &base, before.version).await.map_err(repairing())?;
    let aside = Path::from(format!("{}{ASIDE}", head.path));
    store.inner.rename_if_not_exists(&head.path, &aside).await.map_err(|error| repairing()(error.into()))?;
    Ok(Some(Repaired {
        version: head.version,
        file: shown(&store, &aside),
        problem,
        transactions,
        current: before.version,
        committed: dataset.version().timestamp,
        rows,
    }))
}

/// The transactions that were made on `version`: what the damaged one was, and what others tried.
async fn transactions(store: &ObjectStore, base: &Path, version: u64) -> lance::Result<Vec<String>> {
    let folder = base.clone().join("_transactions");
    let mut names = match store.read_dir(folder.clone()).await {
        Ok(names) => names,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    let prefix = format!("{version}-");
    names.retain(|name| name.starts_with(&prefix));
    names.sort_unstable();
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let bytes = store.inner.get(&folder.clone().join(name.as_str())).await?.bytes().await?;
        let made = pb::Transaction::decode(bytes).ok().map(|transaction| made(&transaction.transaction_properties));
        found.push(made.filter(|made| !made.is_empty()).unwrap_or(name));
    }
    Ok(found)
}

/// A commit in words.
fn made(said: &HashMap<String, String>) -> String {
    let of = |key: &str, name: &str| said.get(key).map(|value| format!("{value} {name}"));
    let run = said.get(properties::RUN_ID).map(|run| format!("of run {run}"));
    let parts = [of(properties::DOCUMENTS, "documents"), of(properties::CHUNKS, "rows"), run];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
