//! The identity of a table.
//!
//! A table may be removed and created again, or overwritten, while a run writes to its address. The ids, fragments and
//! field ids that the run knows are then those of another table. A table gets an identity when it is created, and a run
//! ends when it finds another identity, or a version that replaced all rows.

use std::collections::HashMap;

use lance::{Dataset, dataset::transaction::Operation};
use polylance_schema::ContentRule;
use uuid::Uuid;

use crate::error::SinkError;

/// The key of the identity in the table's schema metadata.
const TABLE_ID_KEY: &str = "polylance.table";

/// The properties of its table that a run relies on from its start to its last commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableMark {
    /// The table's identity; `None` when there was no table, or one from before tables had an identity.
    pub id: Option<String>,
    /// The rule of the content hashes of the run's rows.
    pub rule: ContentRule,
}

impl TableMark {
    pub(crate) fn read(uri: &str, dataset: &Dataset) -> Result<Self, SinkError> {
        let metadata = &dataset.schema().metadata;
        let rule = ContentRule::from_metadata(metadata)
            .map_err(|source| SinkError::LaterTable { uri: uri.to_owned(), source })?;
        Ok(Self { id: metadata.get(TABLE_ID_KEY).cloned(), rule })
    }

    /// Metadata of a table that this run creates.
    pub(crate) fn new_table(&self) -> HashMap<String, String> {
        let identity = (TABLE_ID_KEY.to_owned(), Uuid::new_v4().to_string());
        self.rule.to_metadata().into_iter().chain([identity]).collect()
    }

    /// Checks that the table is the one that the run began with, and has the run's rule of hashes.
    pub(crate) fn check(&self, uri: &str, dataset: &Dataset) -> Result<(), SinkError> {
        let found = Self::read(uri, dataset)?;
        if self.id.is_some() && self.id != found.id {
            return Err(replaced(uri, "it was removed and created again"));
        }
        if self.rule != found.rule {
            let (table, run) = (found.rule, self.rule);
            let what =
                format!("it was created since, with content hashes by rule {table}, and the run uses rule {run}");
            return Err(replaced(uri, what));
        }
        Ok(())
    }
}

fn replaced(uri: &str, what: impl Into<String>) -> SinkError {
    SinkError::Replaced { uri: uri.to_owned(), what: what.into() }
}

/// Moves to the latest version of the same table.
///
/// # Errors
/// [`SinkError::Replaced`] when it is another table, or a version since replaced all rows; [`SinkError::Storage`].
pub(crate) async fn advance_to_latest(uri: &str, dataset: &mut Dataset) -> Result<(), SinkError> {
    let (id, seen) = (TableMark::read(uri, dataset)?.id, dataset.version_id());
    match Box::pin(dataset.checkout_latest()).await {
        Ok(()) => {}
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => {
            return Err(replaced(uri, "it was removed"));
        }
        Err(error) => return Err(SinkError::storage(uri, "looking for a newer version")(error)),
    }
    let version = dataset.version_id();
    if version < seen {
        return Err(replaced(uri, "it was removed and created again"));
    }
    for version in seen + 1..=version {
        let operation = match Box::pin(dataset.read_transaction_by_version(version)).await {
            Ok(transaction) => transaction.map(|transaction| transaction.operation),
            // Removed by a cleanup.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(SinkError::storage(uri, "looking for a newer version")(error)),
        };
        match operation {
            Some(Operation::Overwrite { .. }) => return Err(replaced(uri, "it was overwritten by another program")),
            Some(Operation::Restore { .. }) => return Err(replaced(uri, "an older version was restored")),
            _ => {}
        }
    }
    if TableMark::read(uri, dataset)?.id == id {
        Ok(())
    } else {
        Err(replaced(uri, "it was removed and created again"))
    }
}
