//! A table as a plan sees it, its store, and the objects next to it.

pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod lease;
pub(crate) mod manifests;
pub(crate) mod open;
pub(crate) mod schema_check;
pub(crate) mod sidecar;
pub(crate) mod store_clock;
pub(crate) mod synced_store;
pub(crate) mod target;
pub(crate) mod version_files;

pub use identity::TableMark;
pub use keys::TableKeysExec;
pub use lease::Lease;
pub use manifests::find_damage;
pub use sidecar::{lease_uri, quarantine_uri};
pub use target::TableTarget;
pub use version_files::{VersionFile, VersionFiles, distinct_texts, version_files};

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::physical_plan::ExecutionPlan;
use lance::Dataset;
use polylance_schema::{Contract, columns::RESERVED};

use crate::error::SinkError;

/// One version of a table.
#[derive(Debug, Clone)]
pub struct Table {
    uri: String,
    dataset: Dataset,
}

impl Table {
    /// Opens the latest version at a local path, `s3://`, `gs://`, `az://` or `hf://` address; `None` when there is no
    /// table.
    ///
    /// # Errors
    /// [`SinkError::NotATable`] when something else is there, [`SinkError::Storage`] and [`SinkError::Hub`] when the
    /// store fails.
    pub async fn open(uri: &str) -> Result<Option<Self>, SinkError> {
        let dataset = open::latest_anywhere(uri).await?;
        Ok(dataset.map(|dataset| Self { uri: uri.to_owned(), dataset }))
    }

    /// Checks that a run may write here: that its contract and columns are the table's.
    ///
    /// # Errors
    /// [`SinkError::NoContract`], [`SinkError::ContractMismatch`] or [`SinkError::SchemaMismatch`].
    pub fn check(&self, target: &TableTarget) -> Result<(), SinkError> {
        open::refuse_hub(&self.uri)?;
        schema_check::check_target(&self.dataset, target)
    }

    /// The identity of the table, and the rule of its content hashes.
    ///
    /// # Errors
    /// [`SinkError::LaterTable`].
    pub fn mark(&self) -> Result<TableMark, SinkError> {
        TableMark::read(&self.uri, &self.dataset)
    }

    /// A plan that reads each document's `doc_id` and `content_hash` and nothing else
    /// ([`polylance_schema::key_schema`], one partition).
    ///
    /// # Errors
    /// [`SinkError::SchemaMismatch`] when the table lacks one of these columns.
    pub fn keys(&self) -> Result<Arc<dyn ExecutionPlan>, SinkError> {
        let schema = Schema::from(self.dataset.schema());
        Ok(Arc::new(TableKeysExec::try_new(&self.uri, self.version(), &schema)?))
    }

    /// The columns that runs copy from their sources.
    pub fn kept_columns(&self) -> Vec<FieldRef> {
        let schema = schema_check::without_foreign(&self.dataset, &Schema::empty());
        schema.fields().iter().filter(|field| !RESERVED.contains(&field.name().as_str())).map(Arc::clone).collect()
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The version that was opened.
    pub fn version(&self) -> u64 {
        self.dataset.version_id()
    }

    /// The table's contract; `None` when polylance did not make it.
    ///
    /// # Errors
    /// [`SinkError::UnreadableContract`] when another version of polylance wrote the metadata.
    pub fn contract(&self) -> Result<Option<Contract>, SinkError> {
        schema_check::contract(&self.uri, &self.dataset)
    }
}
