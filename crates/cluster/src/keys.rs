//! The documents of tables, read once on a machine for all splits of a run.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::{
    error::Result,
    execution::{
        TaskContext,
        memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool},
    },
    physical_plan::ExecutionPlan,
};
use polylance_dataflow::KnownDocuments;
use polylance_schema::key_schema;
use polylance_sink::{TableKeysExec, TableTarget};
use tokio::sync::OnceCell;

/// Versions that are kept: runs into two tables may take turns.
const MAX_VERSIONS: usize = 2;

/// A version of a table. The address alone does not name one: a table that is removed and made again begins at the
/// first version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    uri: String,
    /// The table's id; that of the run for a table without one.
    table: String,
    number: u64,
}

type Known = Arc<OnceCell<Arc<KnownDocuments>>>;

/// The documents of the versions that were requested last.
#[derive(Debug, Default)]
pub(crate) struct TableKeys(Mutex<Vec<(Version, Known)>>);

impl TableKeys {
    /// The documents of a version of a run's table, which take at most `memory` bytes; the rest is on disk.
    pub(crate) async fn get(&self, target: &TableTarget, number: u64, memory: usize) -> Result<Arc<KnownDocuments>> {
        let TableTarget { uri, mark, run_id, .. } = target;
        let table = mark.id.as_ref().unwrap_or(run_id);
        let cell = self.cell(Version { uri: uri.clone(), table: table.clone(), number });
        let known = cell.get_or_try_init(|| read(uri, number, memory)).await?;
        Ok(Arc::clone(known))
    }

    fn cell(&self, version: Version) -> Known {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = versions.iter().position(|(known, _)| *known == version);
        let entry = found.map_or_else(|| (version, Arc::default()), |at| versions.remove(at));
        let cell = Arc::clone(&entry.1);
        versions.push(entry);
        if versions.len() > MAX_VERSIONS {
            versions.remove(0);
        }
        cell
    }
}

async fn read(uri: &str, version: u64, memory: usize) -> Result<Arc<KnownDocuments>> {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
    let keys = TableKeysExec::try_new(uri, version, &key_schema())?;
    let stream = keys.execute(0, Arc::new(TaskContext::default()))?;
    let reservation = MemoryConsumer::new("TableKeys").register(&pool);
    Ok(Arc::new(KnownDocuments::read(stream, reservation).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_requested_last_are_kept() {
        let keys = TableKeys::default();
        let table = |table: &str, number| Version { uri: "docs.lance".to_owned(), table: table.to_owned(), number };
        let version = |number| table("t1", number);
        let first = keys.cell(version(1));
        let second = keys.cell(version(2));
        assert!(Arc::ptr_eq(&first, &keys.cell(version(1))));
        keys.cell(version(3));
        assert!(Arc::ptr_eq(&first, &keys.cell(version(1))));
        assert!(!Arc::ptr_eq(&second, &keys.cell(version(2))));
        assert!(!Arc::ptr_eq(&first, &keys.cell(table("t2", 1))), "a table that was made again");
    }
}
