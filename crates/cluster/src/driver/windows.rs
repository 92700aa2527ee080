//! Results in the order of the source: their ids are compared, and their windows sent.

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use polylance_sink::{Retention, SinkError, data_files_exist, remove_outdated_outboxes};

use super::{Drive, taken_name};
use crate::{
    error::ClusterError,
    order::Ready,
    result::{SplitResult, hash_bytes},
};

impl Drive {
    /// Compares the ids of splits with those of all splits before them.
    pub(super) async fn check(&mut self) -> Result<()> {
        while let Some(split) = self.order.to_check() {
            let name = self.ids.remove(&split).unwrap_or_default();
            let result = self.result(&name).await?;
            let mut taken = Vec::new();
            for hash in &result.ids.good {
                if !self.all_ids.insert_hash(*hash).map_err(ids_error)? {
                    taken.push(*hash);
                }
            }
            self.all_ids.insert_refused_of(&result.ids).map_err(ids_error)?;
            if !taken.is_empty() {
                self.outbox.create(&taken_name(split), hash_bytes(&taken)).await?;
                self.taken.insert(split);
                self.rows.remove(&split);
            }
            let cancelled = self.order.checked(taken.len());
            self.jobs.cancel(&cancelled).await;
            // The rows of the same result follow.
            if self.rows.get(&split) == Some(&name) {
                self.results.insert(name, result);
            } else {
                self.outbox.remove(&name).await;
            }
        }
        Ok(())
    }

    /// Sends the windows of the split whose turn it is, if it is done.
    pub(super) async fn release(&mut self) -> Result<()> {
        let Some(Ready { split, started }) = self.order.to_release() else { return Ok(()) };
        let name = self.rows.remove(&split).unwrap_or_default();
        let result = self.result(&name).await?;
        // A cleanup may have taken them for those of a run that died, or do so while their window waits for more rows.
        let has_old_files = self.now().saturating_sub(started) > Retention::MIN_ORPHAN_AGE / 2;
        if has_old_files && !data_files_exist(&self.spec.target.uri, &result.windows).await? {
            tracing::warn!(split, "a cleanup has removed the files of the split, which is embedded again");
            self.order.embed_again();
        } else {
            self.order.released();
            self.metrics.add(&result.summary.progress, self.splits.bytes(split));
            self.quarantined.add(result.summary.quarantined as usize);
            for window in &result.windows {
                for full in self.merger.add(window)? {
                    self.send(full).await?;
                }
            }
            if has_old_files {
                self.flush().await?;
            }
        }
        self.outbox.remove(&name).await;
        Ok(())
    }

    /// Sends the windows of all splits in order that are done.
    pub(super) async fn release_all(&mut self) -> Result<()> {
        while self.order.to_release().is_some() {
            self.release().await?;
        }
        self.flush().await
    }

    async fn result(&mut self, name: &str) -> Result<SplitResult, ClusterError> {
        if let Some(result) = self.results.take(name) {
            return Ok(result);
        }
        let missing = || ClusterError::Format {
            what: format!("the result {name} of a split"),
            message: "it was removed from the outbox".to_owned(),
        };
        SplitResult::decode(&self.outbox.read(name).await?.ok_or_else(missing)?)
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        match self.merger.close()? {
            Some(window) => self.send(window).await,
            None => Ok(()),
        }
    }

    async fn send(&self, window: RecordBatch) -> Result<()> {
        let stopped = |_| DataFusionError::Execution("the commit operator has stopped".to_owned());
        self.output.send(Ok(window)).await.map_err(stopped)
    }

    /// Removes the results of this run, and those of runs that died. Those that stay are removed by a later run.
    pub(super) async fn clean_up(&self) {
        for removed in [self.outbox.clear().await, remove_outdated_outboxes(&self.spec.target.uri).await] {
            if let Err(error) = removed {
                tracing::warn!(%error, "results of splits stay next to the table");
            }
        }
    }
}

fn ids_error(source: std::io::Error) -> SinkError {
    SinkError::Ids { source }
}
