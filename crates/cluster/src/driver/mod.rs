//! Drives a run on a cluster: requests splits, takes their results, and yields their windows in the order of the source.

mod attempts;
mod jobs;
mod reachable;
mod result_cache;
mod windows;

use std::{
    collections::{BTreeSet, HashMap},
    future::ready,
    sync::Arc,
    time::Duration,
};

use arrow::array::RecordBatch;
use datafusion::{
    error::{DataFusionError, Result},
    physical_plan::metrics::Count,
};
use polylance_dataflow::{AllIds, Cancelled, ShutdownSignal, Source, SourceIds, SplitMetrics, Splits};
use polylance_sink::{Outbox, WindowMerger};
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{jobs::Jobs, reachable::Reachable, result_cache::ResultCache};
use crate::{
    cluster_exec::ClusterSpec,
    error::ClusterError,
    order::{Attempt, IdCheck, Order},
    task::{Envelope, SplitTask, TaskKind, TaskTarget},
};

/// Interval at which jobs are asked for their state, if they are few.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The smallest split that is made so that all slots have some.
const MIN_SPLIT_BYTES: u64 = 1 << 20;
/// Splits that each slot has at least, if they are large enough.
const SPLITS_PER_SLOT: u64 = 4;

/// What of a run is known before its first split.
pub(crate) struct Driver {
    pub(crate) spec: Arc<ClusterSpec>,
    pub(crate) source: Source,
    pub(crate) shutdown: ShutdownSignal,
    /// Takes the ids of the source, if they are requested.
    pub(crate) source_ids: Option<Arc<SourceIds>>,
    pub(crate) metrics: SplitMetrics,
    pub(crate) quarantined: Count,
    pub(crate) output: Sender<Result<RecordBatch>>,
}

/// A run whose source is cut.
struct Drive {
    spec: Arc<ClusterSpec>,
    target: TaskTarget,
    splits: Splits,
    order: Order,
    outbox: Outbox,
    jobs: Jobs,
    results: ResultCache,
    /// The objects with the rows and the ids of splits.
    rows: HashMap<usize, String>,
    ids: HashMap<usize, String>,
    all_ids: AllIds,
    /// Splits with ids that earlier ones have.
    taken: BTreeSet<usize>,
    merger: WindowMerger,
    metrics: SplitMetrics,
    quarantined: Count,
    output: Sender<Result<RecordBatch>>,
    /// The errors of splits.
    errors: HashMap<usize, ClusterError>,
    cluster: Reachable,
    started: Instant,
    polled: Instant,
    outbox_polled: Instant,
}

impl Driver {
    /// Embeds the source on the cluster, up to its end or until the run is stopped.
    pub(crate) async fn run(self) -> Result<()> {
        if self.source.files() == 0 {
            if let Some(source_ids) = &self.source_ids {
                source_ids.set(AllIds::new());
            }
            return Ok(());
        }
        let check = match (self.source.has_row_ids(), self.source.has_content_ids()) {
            (true, _) if self.source_ids.is_none() => IdCheck::Unneeded,
            (_, true) => IdCheck::BeforeRows,
            _ => IdCheck::AfterRows,
        };
        let (uri, run_id) = (&self.spec.target.uri, &self.spec.target.run_id);
        let outbox = Outbox::open(uri, run_id).await?;
        let mut cluster = Reachable::new();
        let slots = tokio::select! {
            slots = cluster.first_slots(&self.spec) => slots?,
            () = self.shutdown.requested() => return Err(Cancelled::error()),
        };
        let bytes = split_bytes(self.spec.settings.split_bytes, self.source.total_bytes(), slots);
        let splits = Box::pin(self.source.into_splits(bytes)).await?;
        tracing::info!(run = run_id, splits = splits.len(), slots, "embedding on a cluster");
        let mut order = Order::new((0..splits.len()).map(|at| splits.bytes(at)), check);
        order.set_slots(slots);
        let mut drive = Drive {
            target: TaskTarget::new(&self.spec.target)?,
            jobs: Jobs::new(Arc::clone(&self.spec.engine)),
            splits,
            order,
            outbox,
            results: ResultCache::default(),
            rows: HashMap::new(),
            ids: HashMap::new(),
            all_ids: AllIds::new(),
            taken: BTreeSet::new(),
            merger: WindowMerger::new(self.spec.target.commit),
            metrics: self.metrics,
            quarantined: self.quarantined,
            output: self.output,
            errors: HashMap::new(),
            cluster,
            started: Instant::now(),
            polled: Instant::now(),
            outbox_polled: Instant::now(),
            spec: Arc::clone(&self.spec),
        };
        let ended = Box::pin(drive.run(&self.shutdown)).await;
        // What is in order is good, whatever happened after it.
        let released = drive.release_all().await;
        drive.jobs.cancel_all().await;
        drive.clean_up().await;
        ended.and(released)?;
        if let Some(source_ids) = &self.source_ids {
            source_ids.set(drive.all_ids);
        }
        Ok(())
    }
}

/// The size of a split: at most `wanted`, and less if some slots would have too few.
fn split_bytes(wanted: u64, total: u64, slots: usize) -> u64 {
    let share = total / (slots as u64 * SPLITS_PER_SLOT).max(1);
    wanted.min(share.max(MIN_SPLIT_BYTES)).max(1)
}

impl Drive {
    async fn run(&mut self, shutdown: &ShutdownSignal) -> Result<()> {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_stopped, mut is_forced) = (false, false);
        loop {
            if let Some(slots) = self.cluster.slots(&self.spec).await {
                self.order.set_slots(slots);
            }
            self.submit().await?;
            self.poll().await?;
            self.take_overdue().await?;
            self.check().await?;
            // A commit may take long: one at a time, and it is no time that the run waits for the cluster.
            let committing = Instant::now();
            self.release().await?;
            if self.merger.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                self.flush().await?;
            }
            self.cluster.exclude(committing.elapsed());
            if self.order.is_over() {
                break;
            }
            if !is_stopped {
                self.expect_alive()?;
            }
            let has_more = self.order.to_release().is_some();
            tokio::select! {
                () = ready(()), if has_more => {}
                _ = ticks.tick() => {}
                () = shutdown.requested(), if !is_stopped => {
                    is_stopped = true;
                    self.order.stop();
                }
                () = shutdown.forced(), if is_stopped && !is_forced => {
                    is_forced = true;
                    self.order.cancel_all();
                    self.jobs.cancel_all().await;
                }
            }
        }
        if self.order.is_complete() {
            return Ok(());
        }
        let failed = self.order.failed_split().and_then(|split| self.errors.remove(&split));
        Err(failed.map_or_else(Cancelled::error, DataFusionError::from))
    }

    /// Fails when the cluster could not be used for too long. Executors that are gone may have said why.
    fn expect_alive(&mut self) -> Result<(), ClusterError> {
        let alive = self.cluster.expect_alive(&self.spec);
        if !matches!(alive, Err(ClusterError::NoExecutors { .. })) {
            return alive;
        }
        let mut errors = self.errors.drain().map(|(_, error)| error);
        errors.find(|error| matches!(error, ClusterError::Executor { .. })).map_or(alive, Err)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Requests what the order wants.
    async fn submit(&mut self) -> Result<()> {
        let mut refused = None;
        while let Some(attempt) = self.order.next_attempt(self.now()) {
            let Attempt { split, number, kind } = attempt;
            let name = result_name(attempt);
            let taken = self.taken.contains(&split) && kind == TaskKind::Rows;
            let task = SplitTask {
                kind,
                pipeline: self.spec.pipeline.clone(),
                source: self.splits.get(split)?,
                target: self.target.clone(),
                known_version: self.spec.known_version,
                taken: taken.then(|| taken_name(split)),
                memory: self.spec.memory,
            };
            let task = Envelope::new(&self.spec.target, name).seal(&task)?;
            let title = format!("{} split {split} of {}, attempt {number}", self.spec.target.uri, self.splits.len());
            match self.spec.engine.submit(&title, task.into()).await {
                Ok(job) => {
                    self.cluster.accepted();
                    self.jobs.insert(attempt, job);
                }
                Err(error) => {
                    self.order.withdrawn(attempt);
                    refused = Some(error);
                    break;
                }
            }
        }
        match refused {
            Some(error) => self.cluster.refused(error),
            // There may have been nothing to submit.
            None => self.cluster.accepted(),
        }
        Ok(())
    }
}

/// The name of the result of an attempt in the outbox.
fn result_name(Attempt { split, number, kind }: Attempt) -> String {
    let suffix = if kind == TaskKind::Ids { "ids" } else { "arrow" };
    format!("{split}-{number}.{suffix}")
}

/// The name of the ids of a split that earlier splits have.
fn taken_name(split: usize) -> String {
    format!("{split}.taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_smaller_when_slots_would_have_none() {
        let mib = 1 << 20;
        assert_eq!(split_bytes(64 * mib, 10_000 * mib, 8), 64 * mib);
        assert_eq!(split_bytes(64 * mib, 320 * mib, 8), 10 * mib);
        assert_eq!(split_bytes(64 * mib, 2 * mib, 8), mib);
        assert_eq!((split_bytes(1000, 2 * mib, 8), split_bytes(0, 0, 0)), (1000, 1));
    }

    #[test]
    fn results_have_a_name_for_each_attempt() {
        let attempt = Attempt { split: 3, number: 1, kind: TaskKind::Rows };
        let ids = Attempt { kind: TaskKind::Ids, ..attempt };
        assert_eq!([result_name(attempt), result_name(ids), taken_name(3)], ["3-1.arrow", "3-1.ids", "3.taken"]);
    }
}
