//! The rows of a table that a window replaces.
//!
//! A run must not scan the table for every commit. It keeps a hash of each key that was in the table before it, or that
//! another writer has added since. Only when a window contains one of them are the exact keys of those fragments read
//! again, for the addresses of the rows to delete. Rows that the run itself has written are never read: its documents
//! do not repeat.

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::UInt64Type,
};
use futures::TryStreamExt;
use lance::Dataset;
use lance_core::ROW_ADDR;
use lance_table::format::Fragment;
use polylance_ids::SeenIds;

use crate::error::SinkError;

/// Row offsets by fragment.
pub(crate) type RowAddresses = BTreeMap<u32, Vec<u32>>;

/// Adds a row by its address.
pub(crate) fn add_row(rows: &mut RowAddresses, address: u64) {
    rows.entry((address >> 32) as u32).or_default().push(address as u32);
}

/// The keys that the table may already have.
#[derive(Debug, Default)]
pub(crate) struct KnownRows {
    keys: SeenIds,
    read_fragments: HashSet<u64>,
    own_fragments: HashSet<u64>,
}

impl KnownRows {
    /// Reads the keys of fragments that are new since the last call and not this run's own.
    ///
    /// `add_keys` adds those of one batch of `columns`.
    pub(crate) async fn read_new_fragments(
        &mut self,
        uri: &str,
        dataset: &Dataset,
        columns: &[&str],
        add_keys: impl Fn(&RecordBatch, &mut SeenIds) -> io::Result<()>,
    ) -> Result<(), SinkError> {
        let unread: Vec<_> =
            self.foreign(dataset).into_iter().filter(|fragment| !self.read_fragments.contains(&fragment.id)).collect();
        if unread.is_empty() {
            return Ok(());
        }
        self.read_fragments.extend(unread.iter().map(|fragment| fragment.id));
        let mut batches = Box::pin(scan(uri, dataset, unread, columns)).await?;
        while let Some(batch) = batches.try_next().await.map_err(SinkError::storage(uri, "reading the table's ids"))? {
            add_keys(&batch, &mut self.keys).map_err(|source| SinkError::Ids { source })?;
        }
        Ok(())
    }

    /// Marks the committed fragments with these `files` as this run's own.
    pub(crate) fn mark_own(&mut self, dataset: &Dataset, files: &HashSet<String>) {
        let written = dataset.fragments().iter().filter(|f| f.files.iter().any(|file| files.contains(&file.path)));
        self.own_fragments.extend(written.map(|fragment| fragment.id));
    }

    /// Whether the table may have a key.
    pub(crate) fn may_contain(&mut self, key: impl AsRef<[u8]>) -> Result<bool, SinkError> {
        self.keys.contains(key).map_err(|source| SinkError::Ids { source })
    }

    /// Addresses of the rows for which `replaced` holds, among rows that are not this run's own.
    pub(crate) async fn find_rows(
        &self,
        uri: &str,
        dataset: &Dataset,
        columns: &[&str],
        mut replaced: impl FnMut(&RecordBatch, usize) -> bool,
    ) -> Result<RowAddresses, SinkError> {
        let mut found = RowAddresses::new();
        let fragments = self.foreign(dataset);
        if fragments.is_empty() {
            return Ok(found);
        }
        let mut batches = Box::pin(scan(uri, dataset, fragments, columns)).await?;
        while let Some(batch) = batches.try_next().await.map_err(SinkError::storage(uri, "reading the table's ids"))? {
            let Some(addresses) = batch.column_by_name(ROW_ADDR) else {
                return Err(SinkError::rows(uri, "a scan without row addresses"));
            };
            let addresses = addresses.as_primitive::<UInt64Type>();
            for row in (0..batch.num_rows()).filter(|row| replaced(&batch, *row)) {
                add_row(&mut found, addresses.value(row));
            }
        }
        Ok(found)
    }

    fn foreign(&self, dataset: &Dataset) -> Vec<Fragment> {
        dataset.fragments().iter().filter(|fragment| !self.own_fragments.contains(&fragment.id)).cloned().collect()
    }
}

async fn scan(
    uri: &str,
    dataset: &Dataset,
    fragments: Vec<Fragment>,
    columns: &[&str],
) -> Result<lance::dataset::scanner::DatasetRecordBatchStream, SinkError> {
    let reading = |error| SinkError::storage(uri, "reading the table's ids")(error);
    let mut scanner = dataset.scan();
    scanner.with_fragments(fragments).project(columns).map_err(reading)?.with_row_address();
    Box::pin(scanner.try_into_stream()).await.map_err(reading)
}
