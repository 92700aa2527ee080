//! Outboxes: the results of the splits that other machines embed, as objects in a folder next to the table.
//!
//! A result is written once and never replaced. So a split that two machines finish has one result, and a result
//! outlives the machine that wrote it, and the message that it is there.

use std::time::Duration;

use chrono::Utc;

use crate::{
    error::SinkError,
    table::sidecar::{Sidecar, sidecar_uri},
};

/// The age at which objects of an outbox are those of a run that died.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
const ACTION: &str = "keeping the results of splits";

/// The outbox of a run.
#[derive(Debug)]
pub struct Outbox(Sidecar);

impl Outbox {
    /// The outbox of the run `run_id` into the table at `table_uri`.
    ///
    /// # Errors
    /// [`SinkError::Storage`] if the store cannot be opened.
    pub async fn open(table_uri: &str, run_id: &str) -> Result<Self, SinkError> {
        let uri = format!("{}/{run_id}", sidecar_uri(table_uri, "outbox"));
        Ok(Self(Sidecar::open(uri, ACTION).await?))
    }

    /// Writes an object. If there is one of this name, it stays.
    ///
    /// # Errors
    /// [`SinkError::Storage`].
    pub async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<(), SinkError> {
        self.0.create(name, bytes).await
    }

    /// The bytes of an object; `None` when there is none.
    ///
    /// # Errors
    /// [`SinkError::Storage`].
    pub async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SinkError> {
        self.0.read(name).await
    }

    /// Removes an object. One that stays because the store failed is removed by a later run.
    pub async fn remove(&self, name: &str) {
        self.0.remove(name).await;
    }

    /// Removes all objects of the run.
    ///
    /// # Errors
    /// [`SinkError::Storage`].
    pub async fn clear(&self) -> Result<(), SinkError> {
        self.0.remove_older(Utc::now() + MAX_AGE).await
    }
}

/// Removes what runs that died have left in the outboxes of a table.
///
/// # Errors
/// [`SinkError::Storage`].
pub async fn remove_outdated_outboxes(table_uri: &str) -> Result<(), SinkError> {
    let all = Sidecar::open(sidecar_uri(table_uri, "outbox"), ACTION).await?;
    all.remove_older(Utc::now() - MAX_AGE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_result_of_a_name_stays_and_a_run_clears_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("docs.lance").display().to_string();
        let (outbox, other) = (Outbox::open(&table, "r1").await.unwrap(), Outbox::open(&table, "r2").await.unwrap());
        assert_eq!(outbox.read("0-0").await.unwrap(), None);
        outbox.create("0-0", b"first".to_vec()).await.unwrap();
        outbox.create("0-0", b"second".to_vec()).await.unwrap();
        outbox.create("0-1", b"third".to_vec()).await.unwrap();
        other.create("0-0", b"other".to_vec()).await.unwrap();
        assert_eq!(outbox.read("0-0").await.unwrap().as_deref(), Some(&b"first"[..]));
        assert!(folder.path().join("docs.outbox/r1/0-0").is_file());
        outbox.remove("0-1").await;
        assert_eq!(outbox.read("0-1").await.unwrap(), None);
        remove_outdated_outboxes(&table).await.unwrap();
        outbox.clear().await.unwrap();
        assert_eq!(outbox.read("0-0").await.unwrap(), None);
        assert_eq!(other.read("0-0").await.unwrap().as_deref(), Some(&b"other"[..]));
    }
}
