//! Copies of one document that several runs have written at the same time: those of one run stay.
//!
//! Lance lets a commit pass over rows that another writer has added since the version it was made from. A writer whose
//! commit passed over others takes away what is there twice by a commit of its own. Others may do so at the same time,
//! each from a version of its own, so all must spare the same copy: if each kept its own rows and took away the
//! others', two writers could take away each other's, and the document would be gone. The copy of the greatest run id
//! stays. A writer takes away a copy only when its version has one with a greater run id, so the greatest is never
//! among them. Run ids are UUIDs of version 7: the run that began last keeps its rows.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use crate::known_rows::RowAddresses;

/// Row addresses by document and run.
#[derive(Debug)]
pub(crate) struct Copies<Key>(HashMap<Key, BTreeMap<String, Vec<u64>>>);

impl<Key: Hash + Eq> Copies<Key> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Adds the row at `address`, which `run_id` wrote for the document `key`.
    pub(crate) fn add(&mut self, key: Key, run_id: &str, address: u64) {
        self.0.entry(key).or_default().entry(run_id.to_owned()).or_default().push(address);
    }

    /// The rows to take away.
    pub(crate) fn superseded(self) -> RowAddresses {
        let mut rows = RowAddresses::new();
        for mut runs in self.0.into_values() {
            runs.pop_last();
            for address in runs.into_values().flatten() {
                rows.entry((address >> 32) as u32).or_default().push(address as u32);
            }
        }
        rows
    }
}
