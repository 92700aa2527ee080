//! A lease on a table, for runs that must be its only writer.
//!
//! `docs.lease/` next to `docs.lance` has one small object per generation. A run acquires the lease by creating the
//! next generation, which the store allows only one writer to do; the newest generation belongs to the holder as long
//! as it is renewed. A holder marks its lease as released when it is done. A holder whose process no longer exists on
//! this machine counts as dead at once, and any other after a minute without renewal. Both times are the store's: that
//! of the last renewal, and that of a small object that is written for the comparison. So a machine with a wrong clock
//! takes no lease from a living holder. A holder that finds a newer generation has lost its lease, see [`Lease::lost`].
//! Data never depends on the lease: it only decides which run writes, and commits do not rely on it.

use std::{fs, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use lance::io::ObjectStore;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions, path::Path};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet};

use super::{sidecar::lease_uri, store_clock::store_now};
use crate::error::SinkError;

/// A holder that has not renewed its lease for this long counts as dead.
const LEASE_TIMEOUT: Duration = Duration::from_mins(1);
/// How often a holder renews its lease.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);
/// Attempts to acquire a lease while other runs create generations.
const MAX_ACQUIRE_ATTEMPTS: usize = 10;

/// The holder of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    run_id: String,
    process: Process,
    released: bool,
}

/// A process, identified among those of all machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    host: String,
    /// The boot of the machine, and the container.
    world: String,
    pid: u32,
    /// When the process was started, in the kernel's own units: process ids are reused.
    started: Option<u64>,
}

/// The exclusive right to write to a table, until [`Lease::release`].
#[derive(Debug)]
pub struct Lease {
    folder: LeaseFolder,
    generation: u64,
    holder: Holder,
    /// Renews the lease until it is dropped.
    renewal: JoinSet<()>,
    /// Becomes true when another run has taken the lease.
    lost: watch::Receiver<bool>,
}

#[derive(Debug, Clone)]
struct LeaseFolder {
    uri: String,
    store: Arc<ObjectStore>,
    folder: Path,
}

impl Lease {
    /// Acquires the lease of the table at `table_uri` for a run.
    ///
    /// # Errors
    /// [`SinkError::Locked`] when another run has it, [`SinkError::NoLease`] when the store lets two writers create one
    /// object, [`SinkError::Storage`] when the store fails.
    pub async fn acquire(table_uri: &str, run_id: &str) -> Result<Self, SinkError> {
        let folder = LeaseFolder::open(lease_uri(table_uri)).await?;
        let holder = Holder { run_id: run_id.to_owned(), process: Process::own(), released: false };
        for _ in 0..MAX_ACQUIRE_ATTEMPTS {
            let generations = folder.generations().await?;
            let next = generations.last().map_or(1, |(newest, _)| newest + 1);
            if let Some((_, newest)) = generations.last() {
                folder.expect_free(table_uri, newest).await?;
            }
            if !folder.create(next, &holder).await? {
                continue;
            }
            if folder.create(next, &holder).await? {
                return Err(SinkError::NoLease { uri: table_uri.to_owned() });
            }
            for (_, old) in &generations {
                // A generation that stays is not the newest, so it has no holder.
                drop(folder.store.inner.delete(&old.location).await);
            }
            let (loses, lost) = watch::channel(false);
            let mut renewal = JoinSet::new();
            renewal.spawn(renew(folder.clone(), next, holder.clone(), loses));
            return Ok(Self { folder, generation: next, holder, renewal, lost });
        }
        Err(SinkError::Locked { uri: table_uri.to_owned(), holder: "another run, and another after it".to_owned() })
    }

    /// Returns when another run has taken the lease, which happens when this one could not renew it for a minute.
    pub async fn lost(&self) -> SinkError {
        let mut lost = self.lost.clone();
        // The sender lives as long as the renewal, and the renewal as long as `self`.
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
        let holder = "another run, which took the lease because this one had not renewed it for a minute".to_owned();
        SinkError::Locked { uri: self.folder.uri.clone(), holder }
    }

    /// Releases the lease. When the store fails, the next run waits until this process has ended.
    pub async fn release(self) {
        let Self { folder, generation, holder, mut renewal, lost } = self;
        renewal.shutdown().await;
        if *lost.borrow() {
            return;
        }
        drop(folder.write(generation, &Holder { released: true, ..holder }, PutMode::Overwrite).await);
    }
}

async fn renew(folder: LeaseFolder, generation: u64, holder: Holder, loses: watch::Sender<bool>) {
    let mut ticks = tokio::time::interval(RENEWAL_INTERVAL);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        // A failed renewal is repeated in time.
        if folder.renew(generation, &holder).await.is_ok_and(|renewed| !renewed) {
            loses.send_replace(true);
            // The receiver must see the value before the sender is dropped.
            return loses.closed().await;
        }
    }
}

impl LeaseFolder {
    async fn open(uri: String) -> Result<Self, SinkError> {
        match ObjectStore::from_uri(&uri).await {
            Ok((store, folder)) => Ok(Self { uri, store, folder }),
            Err(error) => Err(SinkError::storage(&uri, "looking for the table's lease")(error)),
        }
    }

    fn path(&self, generation: u64) -> Path {
        self.folder.clone().join(format!("{generation:012}.json"))
    }

    fn failed(&self) -> impl FnOnce(object_store::Error) -> SinkError {
        let uri = self.uri.clone();
        move |error| SinkError::storage(&uri, "taking the table's lease")(error.into())
    }

    /// All generations, the newest last.
    async fn generations(&self) -> Result<Vec<(u64, ObjectMeta)>, SinkError> {
        let files: Vec<ObjectMeta> =
            self.store.inner.list(Some(&self.folder)).try_collect().await.map_err(self.failed())?;
        let number = |file: &ObjectMeta| file.location.filename()?.strip_suffix(".json")?.parse().ok();
        let mut generations: Vec<_> = files.into_iter().filter_map(|file| Some((number(&file)?, file))).collect();
        generations.sort_unstable_by_key(|(generation, _)| *generation);
        Ok(generations)
    }

    /// Fails when the holder of a generation is alive.
    async fn expect_free(&self, table_uri: &str, newest: &ObjectMeta) -> Result<(), SinkError> {
        let bytes = match self.store.inner.get(&newest.location).await {
            Ok(found) => found.bytes().await.map_err(self.failed())?,
            // A later holder has removed it.
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(self.failed()(error)),
        };
        // Incomplete, or of another version: only its age decides.
        let holder: Option<Holder> = serde_json::from_slice(&bytes).ok();
        if holder.as_ref().is_some_and(|holder| holder.released || holder.process.is_gone()) {
            return Ok(());
        }
        let silent = (self.now().await? - newest.last_modified).to_std().unwrap_or_default();
        if silent > LEASE_TIMEOUT {
            return Ok(());
        }
        let holder = holder.map_or_else(
            || "a run".to_owned(),
            |Holder { run_id, process, .. }| format!("run {run_id} (process {} on {})", process.pid, process.host),
        );
        let holder = format!("{holder}, last renewed {} s ago", silent.as_secs());
        Err(SinkError::Locked { uri: table_uri.to_owned(), holder })
    }

    /// Renews a generation; false when there is a newer one.
    async fn renew(&self, generation: u64, holder: &Holder) -> Result<bool, SinkError> {
        if self.generations().await?.last().is_some_and(|(newest, _)| *newest > generation) {
            return Ok(false);
        }
        self.write(generation, holder, PutMode::Overwrite).await
    }

    /// The time by the store's clock.
    async fn now(&self) -> Result<DateTime<Utc>, SinkError> {
        store_now(&self.store, &self.folder).await.map_err(self.failed())
    }

    /// False when another run has created it first.
    async fn create(&self, generation: u64, holder: &Holder) -> Result<bool, SinkError> {
        self.write(generation, holder, PutMode::Create).await
    }

    async fn write(&self, generation: u64, holder: &Holder, mode: PutMode) -> Result<bool, SinkError> {
        let bytes = serde_json::to_vec(holder).map_err(|error| SinkError::rows(&self.uri, error.to_string()))?;
        match self.store.inner.put_opts(&self.path(generation), bytes.into(), PutOptions::from(mode)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed()(error)),
        }
    }
}

impl Process {
    fn own() -> Self {
        let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let container = fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            world: format!("{} {container}", read("/proc/sys/kernel/random/boot_id")),
            pid: std::process::id(),
            started: started(std::process::id()),
        }
    }

    /// Whether the process is known to have ended, which only the same machine can know.
    fn is_gone(&self) -> bool {
        let own = Self::own();
        self.world == own.world && self.started.is_some() && started(self.pid) != self.started
    }
}

/// When a process was started; `None` when there is none, or when the system does not report it.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may contain spaces and brackets; the start is the 20th field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn table(folder: &tempfile::TempDir) -> String {
        folder.path().join("docs.lance").display().to_string()
    }

    #[tokio::test]
    async fn second_run_is_refused_until_the_first_releases() {
        let folder = tempfile::tempdir().unwrap();
        let uri = table(&folder);
        let first = Lease::acquire(&uri, "first").await.unwrap();
        let refused = Lease::acquire(&uri, "second").await.unwrap_err();
        let message = refused.to_string();
        assert!(
            matches!(refused, SinkError::Locked { .. }) && message.contains("first") && message.contains(&uri),
            "{message}"
        );
        first.release().await;
        let second = Lease::acquire(&uri, "second").await.unwrap();
        assert_eq!(second.generation, 2);
        assert_eq!(fs::read_dir(folder.path().join("docs.lease")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn only_one_of_many_concurrent_runs_acquires_the_lease() {
        let folder = tempfile::tempdir().unwrap();
        let uri = table(&folder);
        let runs = (0..20).map(|_| Lease::acquire(&uri, "run"));
        let held = futures::future::join_all(runs).await;
        assert_eq!(held.iter().filter(|lease| lease.is_ok()).count(), 1);
    }

    #[tokio::test]
    async fn lease_of_a_dead_process_is_taken_over_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let uri = table(&folder);
        let mut lease = Lease::acquire(&uri, "dead").await.unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        lease.holder.process.pid = child.id();
        lease.holder.process.started = started(child.id());
        lease.folder.write(1, &lease.holder, PutMode::Overwrite).await.unwrap();
        assert!(Lease::acquire(&uri, "next").await.is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Lease::acquire(&uri, "next").await.unwrap().generation, 2);
    }

    #[tokio::test]
    async fn lost_lease_is_not_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let uri = table(&folder);
        let first = Lease::acquire(&uri, "first").await.unwrap();
        assert!(first.folder.renew(1, &first.holder).await.unwrap());
        // As a run that considers this one dead.
        assert!(first.folder.create(2, &Holder { run_id: "second".into(), ..first.holder.clone() }).await.unwrap());
        fs::remove_file(folder.path().join("docs.lease/000000000001.json")).unwrap();
        assert!(!first.folder.renew(1, &first.holder).await.unwrap());
        assert_eq!(fs::read_dir(folder.path().join("docs.lease")).unwrap().count(), 1, "nothing is written again");
    }

    #[tokio::test]
    async fn time_since_renewal_is_measured_by_the_clock_of_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let lease = LeaseFolder::open(lease_uri(&table(&folder))).await.unwrap();
        fs::create_dir(folder.path().join("docs.lease")).unwrap();
        let before = Utc::now() - Duration::from_secs(2);
        assert!(lease.now().await.unwrap() > before);
        assert_eq!(fs::read_dir(folder.path().join("docs.lease")).unwrap().count(), 0, "the probe is removed");
    }

    #[tokio::test]
    async fn lease_of_another_machine_expires_after_the_timeout() {
        let folder = tempfile::tempdir().unwrap();
        let uri = table(&folder);
        let mut lease = Lease::acquire(&uri, "far").await.unwrap();
        lease.holder.process.world = "another".into();
        lease.holder.process.pid = u32::MAX;
        lease.folder.write(1, &lease.holder, PutMode::Overwrite).await.unwrap();
        assert!(Lease::acquire(&uri, "next").await.is_err());
        let silent = folder.path().join("docs.lease/000000000001.json");
        let long_ago = std::time::SystemTime::now() - 2 * LEASE_TIMEOUT;
        fs::File::options().write(true).open(silent).unwrap().set_modified(long_ago).unwrap();
        assert!(Lease::acquire(&uri, "next").await.is_ok());
    }
}
