//! Repairs a table whose newest version cannot be read, as after a power loss.
//!
//! Lance finds the latest version by the name of its manifest and never skips one that is empty or truncated. A repair
//! renames such a manifest, after which the version before is the latest. Nothing is deleted.

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

/// The suffix of the name of a manifest that was set aside.
const DAMAGED_SUFFIX: &str = ".damaged";

/// A manifest that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// The version that could not be read.
    pub version: u64,
    /// Its manifest, under the name it has now.
    pub file: String,
    /// The problem with it.
    pub problem: String,
    /// The transactions that were made on the version before it: one of them was the damaged version, others conflicted
    /// with it.
    pub transactions: Vec<String>,
    /// The version that is the latest now.
    pub current: u64,
    /// When that version was committed, by the clock of the committing machine.
    pub committed: chrono::DateTime<chrono::Utc>,
    /// Its rows.
    pub rows: u64,
}

/// Sets the manifest of the newest version of the table at `uri` aside when it is damaged; `None` when it is intact, or
/// when there is no table.
///
/// # Errors
/// [`SinkError::Damaged`] when the version before is damaged too, or there is none; [`SinkError::Storage`].
pub async fn repair(uri: &str) -> Result<Option<RepairReport>, SinkError> {
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
    let aside = Path::from(format!("{}{DAMAGED_SUFFIX}", head.path));
    store.inner.rename_if_not_exists(&head.path, &aside).await.map_err(|error| repairing()(error.into()))?;
    Ok(Some(RepairReport {
        version: head.version,
        file: shown(&store, &aside),
        problem,
        transactions,
        current: before.version,
        committed: dataset.version().timestamp,
        rows,
    }))
}

/// The transactions that were made on `version`: the damaged one, and those that conflicted with it.
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
        let description =
            pb::Transaction::decode(bytes).ok().map(|transaction| describe(&transaction.transaction_properties));
        found.push(description.filter(|text| !text.is_empty()).unwrap_or(name));
    }
    Ok(found)
}

/// A commit in words.
fn describe(recorded: &HashMap<String, String>) -> String {
    let counted = |key: &str, name: &str| recorded.get(key).map(|value| format!("{value} {name}"));
    let run = recorded.get(properties::RUN_ID).map(|run| format!("of run {run}"));
    let parts = [counted(properties::DOCUMENTS, "documents"), counted(properties::CHUNKS, "rows"), run];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
