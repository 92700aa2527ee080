//! Which table an address names.
//!
//! A table may be removed and made anew, or overwritten, while a run writes to its address. What the run knows of it,
//! its ids, its fragments, its field ids, is then of another table. A table gets an identity when it is made, and a run
//! ends when it finds another one, or that somebody has put other contents in the place of all rows.

use std::collections::HashMap;

use lance::{Dataset, dataset::transaction::Operation};
use polylance_schema::ContentRule;
use uuid::Uuid;

use crate::error::SinkError;

/// The key of the identity in the table's schema metadata.
const KEY: &str = "polylance.table";

/// What a run takes for granted of its table, from its first look to its last commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableMark {
    /// The table's identity; `None` when there was no table, or one that was made before tables had one.
    pub id: Option<String>,
    /// How the content hashes of the run's rows are made.
    pub rule: ContentRule,
}

impl TableMark {
    pub(crate) fn of(uri: &str, dataset: &Dataset) -> Result<Self, SinkError> {
        let metadata = &dataset.schema().metadata;
        let rule = ContentRule::from_metadata(metadata)
            .map_err(|source| SinkError::LaterTable { uri: uri.to_owned(), source })?;
        Ok(Self { id: metadata.get(KEY).cloned(), rule })
    }

    /// Metadata of a table that is made now, by a run that makes its hashes so.
    pub(crate) fn new_table(&self) -> HashMap<String, String> {
        let identity = (KEY.to_owned(), Uuid::new_v4().to_string());
        self.rule.to_metadata().into_iter().chain([identity]).collect()
    }

    /// Whether the table is the one that the run has begun with, and has the hashes that the run makes.
    pub(crate) fn check(&self, uri: &str, dataset: &Dataset) -> Result<(), SinkError> {
        let found = Self::of(uri, dataset)?;
        if self.id.is_some() && self.id != found.id {
            return Err(replaced(uri, "it was removed and made anew"));
        }
        if self.rule != found.rule {
            let (table, run) = (found.rule, self.rule);
            let what =
                format!("it was made meanwhile, with content hashes by rule {table}, and the run makes rule {run}");
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
/// [`SinkError::Replaced`] when it is another table, or all rows have been put away since; [`SinkError::Storage`].
pub(crate) async fn advance(uri: &str, dataset: &mut Dataset) -> Result<(), SinkError> {
    let (id, seen) = (TableMark::of(uri, dataset)?.id, dataset.version_id());
    match Box::pin(dataset.checkout_latest()).await {
        Ok(()) => {}
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => {
            return Err(replaced(uri, "it was removed"));
        }
        Err(error) => return Err(SinkError::storage(uri, "looking for a newer version")(error)),
    }
    let version = dataset.version_id();
    if version < seen {
        return Err(replaced(uri, "it was removed and made anew"));
    }
    for version in seen + 1..=version {
        let operation = match Box::pin(dataset.read_transaction_by_version(version)).await {
            Ok(transaction) => transaction.map(|transaction| transaction.operation),
            // Removed by a cleanup meanwhile.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(SinkError::storage(uri, "looking for a newer version")(error)),
        };
        match operation {
            Some(Operation::Overwrite { .. }) => return Err(replaced(uri, "it was overwritten by another program")),
            Some(Operation::Restore { .. }) => return Err(replaced(uri, "an older version was restored")),
            _ => {}
        }
    }
    if TableMark::of(uri, dataset)?.id == id { Ok(()) } else { Err(replaced(uri, "it was removed and made anew")) }
}
