//! Embeds splits on the machine of an executor.
//!
//! A split is planned here, for the devices of this machine: the plan of a local run over the split's files, up to the
//! data files. Nothing is committed. An error is a result for the machine that drives the run, in the run's outbox.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{
    error::DataFusionError,
    execution::{TaskContext, memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};
use futures::TryStreamExt;
use polylance_backend::{BackendError, TokenizeSpec};
use polylance_dataflow::{SourceError, SplitIdList, plan_split_embeddings, plan_split_ids, progress};
use polylance_schema::{Contract, ErrorClass, Explain, with_causes, without_source_locations};
use polylance_sink::{LanceWriteExec, Outbox, SinkError, TableTarget, quarantined_so_far};
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time::sleep};

use crate::{
    error::ClusterError,
    keys::TableKeys,
    models::{ModelFailure, Models, SplitModel},
    result::{FailureKind, SplitFailure, SplitResult, SplitSummary, hashes_of},
    task::{Envelope, SplitTask, TaskKind},
};

/// Pauses before a model that could not be opened is tried again.
const MODEL_PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30)];

/// Embeds the splits of tasks with the models of this machine.
#[derive(Clone)]
pub struct SplitRunner(Arc<Inner>);

struct Inner {
    models: Arc<dyn Models>,
    keys: TableKeys,
    host: String,
    /// The runtime on which splits are embedded: the threads of a task queue may have a low priority.
    runtime: Handle,
    refused: watch::Sender<Option<String>>,
}

impl fmt::Debug for SplitRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitRunner").field("host", &self.0.host).finish_non_exhaustive()
    }
}

impl SplitRunner {
    /// A runner on the current runtime; `host` is the name of this machine in messages.
    pub fn new(models: Arc<dyn Models>, host: String) -> Self {
        let (refused, _) = watch::channel(None);
        Self(Arc::new(Inner { models, keys: TableKeys::default(), host, runtime: Handle::current(), refused }))
    }

    /// Resolves when this machine must not embed any more, because it has another model or another version than a run,
    /// or no device is left. The value says why.
    pub async fn refused(&self) -> String {
        let mut refused = self.0.refused.subscribe();
        let why = refused.wait_for(Option::is_some).await.map(|why| why.clone());
        match why {
            Ok(Some(why)) => why,
            // The sender lives as long as the runner.
            _ => std::future::pending().await,
        }
    }

    /// Embeds the split of a task and leaves the result in the outbox, also if it is an error. Dropping the future ends
    /// the split.
    ///
    /// # Errors
    /// [`ClusterError`] if the result cannot be written.
    pub async fn run(&self, task: Arc<[u8]>) -> Result<(), ClusterError> {
        let runner = self.clone();
        let mut running = JoinSet::new();
        running.spawn_on(async move { runner.run_here(&task).await }, &self.0.runtime);
        match running.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(panicked)) => Err(ClusterError::format("the split", panicked)),
            None => Ok(()),
        }
    }

    async fn run_here(&self, task: &[u8]) -> Result<(), ClusterError> {
        let (envelope, task) = Envelope::open(task)?;
        let started = Instant::now();
        let outbox = Outbox::open(&envelope.table, &envelope.run_id).await?;
        let embedded = Box::pin(self.embed(&envelope, task, &outbox)).await;
        let mut result = embedded.unwrap_or_else(|failure| {
            tracing::warn!(run = envelope.run_id, split = envelope.result, failure.message, "split failed");
            SplitResult::failed(&self.0.host, failure)
        });
        result.summary.seconds = started.elapsed().as_secs_f64();
        outbox.create(&envelope.result, result.encode()?).await?;
        if let Some(SplitFailure { kind: FailureKind::Executor, message, .. }) = result.summary.failure {
            self.0.refused.send_replace(Some(message));
        }
        Ok(())
    }

    async fn embed(&self, envelope: &Envelope, task: &[u8], outbox: &Outbox) -> Result<SplitResult, SplitFailure> {
        let executor = |error: &dyn Explain| SplitFailure {
            kind: FailureKind::Executor,
            message: error.to_string(),
            hint: error.hint().map(std::borrow::Cow::into_owned),
        };
        let task = SplitTask::parse(envelope, task).map_err(|error| executor(&error))?;
        if let Some(file) = task.source.missing_file() {
            let message = format!("{file} is not on this machine");
            let hint = "`shared_files` in [cluster] is for files that all machines mount at the same path".to_owned();
            return Err(SplitFailure { kind: FailureKind::Permanent, message, hint: Some(hint) });
        }
        let taken = match &task.taken {
            None => Vec::new(),
            Some(name) => {
                let bytes = outbox.read(name).await.map_err(|error| failure(&error.into()))?;
                hashes_of(&bytes.ok_or_else(|| missing_ids(name))?)
            }
        };
        let pipeline = task.pipeline.clone();
        let (kind, known_version, memory) = (task.kind, task.known_version, task.memory);
        let source = Box::pin(task.source.open()).await.map_err(|error| failure(&error.into()))?;
        let target = task.target.target(envelope).map_err(|error| executor(&error))?;
        let ids = Arc::new(SplitIdList::default());
        let config = SessionConfig::new().with_target_partitions(1).with_extension(Arc::clone(&ids));
        if kind == TaskKind::Ids {
            let plan = plan_split_ids(&source, target.mark.rule);
            let context = context(config, memory).map_err(|error| failure(&error))?;
            return self.drain(&plan, context, &ids, Keep::Nothing).await.map_err(|error| failure(&error));
        }
        let model = self.open_model(&pipeline, &target.contract).await?;
        if let Some(message) = other_contract(&target, &model.contract) {
            return Err(SplitFailure { kind: FailureKind::Executor, message, hint: None });
        }
        let embedded = async {
            let known = match known_version {
                Some(version) => Some(self.0.keys.get(&target, version, memory).await?),
                None => None,
            };
            let tokenize =
                TokenizeSpec { prefix: model.contract.prompts.passage.clone(), chunking: model.contract.chunking };
            let (info, heads, rule) = (model.backend.0.info(), &target.heads, target.mark.rule);
            let embeddings = plan_split_embeddings(&source, known, taken.into(), tokenize, info, heads, rule)?;
            let plan: Arc<dyn ExecutionPlan> = Arc::new(LanceWriteExec::try_new(embeddings, target.clone())?);
            let context = context(config.with_extension(Arc::new(model.backend.clone())), memory)?;
            self.drain(&plan, context, &ids, Keep::Windows).await
        };
        Box::pin(embedded).await.map_err(|error| failure(&error))
    }

    /// The model of a pipeline. A store that fails now and then does not end the executor.
    async fn open_model(&self, pipeline: &str, run: &Contract) -> Result<SplitModel, SplitFailure> {
        let mut pauses = MODEL_PAUSES.into_iter();
        loop {
            let ModelFailure { message, hint, class } = match self.0.models.open(pipeline, run).await {
                Ok(model) => return Ok(model),
                Err(failure) => failure,
            };
            match pauses.next().filter(|_| class == ErrorClass::Environment) {
                Some(pause) => {
                    tracing::warn!(message, "the model cannot be opened, and is tried again");
                    sleep(pause).await;
                }
                None => return Err(SplitFailure { kind: FailureKind::Executor, message, hint }),
            }
        }
    }

    /// Executes a plan to its end.
    async fn drain(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        ids: &SplitIdList,
        keep: Keep,
    ) -> Result<SplitResult, DataFusionError> {
        let mut batches = plan.execute(0, context)?;
        let mut windows = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            if keep == Keep::Windows {
                windows.push(batch);
            }
        }
        let ids = ids.take().ok_or_else(|| DataFusionError::Internal("a split that was not read to its end".into()))?;
        let summary = SplitSummary {
            failure: None,
            host: self.0.host.clone(),
            progress: progress(plan.as_ref()),
            quarantined: quarantined_so_far(plan.as_ref()),
            without_id: ids.without_id,
            seconds: 0.0,
        };
        Ok(SplitResult { summary, windows, ids })
    }
}

/// What is kept of the batches of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Windows,
    Nothing,
}

fn context(config: SessionConfig, memory: usize) -> Result<Arc<TaskContext>, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(memory))).build_arc()?;
    Ok(SessionContext::new_with_config_rt(config, runtime).task_ctx())
}

/// How the contract of this machine's model differs from that of the run.
fn other_contract(target: &TableTarget, own: &Contract) -> Option<String> {
    let differences = target.contract.differences(own);
    if differences.is_empty() {
        return None;
    }
    let fields = differences.iter().map(|found| format!("{} is {}, expected {}", found.field, found.run, found.table));
    let fields = fields.collect::<Vec<_>>().join("; ");
    Some(format!("its model is {}, the run's {}: {fields}", own.summary(), target.contract.summary()))
}

/// The error for ids of earlier splits that are not in the outbox, where the run has put them.
fn missing_ids(name: &str) -> SplitFailure {
    let message = format!("the ids that earlier splits have are not in the outbox: {name} is missing");
    SplitFailure { kind: FailureKind::Transient, message, hint: None }
}

/// An error of a plan for the machine that drives the run.
fn failure(error: &DataFusionError) -> SplitFailure {
    let root = error.find_root();
    let message = |error: &dyn std::error::Error| without_source_locations(&with_causes(error));
    let DataFusionError::External(inner) = root else {
        return SplitFailure { kind: FailureKind::Transient, message: message(root), hint: None };
    };
    let hint = |error: &dyn Explain| error.hint().map(std::borrow::Cow::into_owned);
    let (kind, hint) = if let Some(error) = inner.downcast_ref::<SourceError>() {
        let is_transient = error.class() == ErrorClass::Environment && !matches!(error, SourceError::Changed { .. });
        (if is_transient { FailureKind::Transient } else { FailureKind::Permanent }, hint(error))
    } else if let Some(error) = inner.downcast_ref::<SinkError>() {
        let is_transient = matches!(error, SinkError::Storage { .. } | SinkError::Ids { .. } | SinkError::Hub(_));
        (if is_transient { FailureKind::Transient } else { FailureKind::Permanent }, hint(error))
    } else if let Some(error) = inner.downcast_ref::<BackendError>() {
        let is_lost = matches!(error, BackendError::Device { .. } | BackendError::Load(_) | BackendError::Closed);
        (if is_lost { FailureKind::Executor } else { FailureKind::Transient }, None)
    } else {
        (FailureKind::Transient, None)
    };
    SplitFailure { kind, message: message(inner.as_ref()), hint }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn kind(error: impl std::error::Error + Send + Sync + 'static) -> FailureKind {
        failure(&DataFusionError::External(Box::new(error))).kind
    }

    #[test]
    fn errors_of_stores_are_transient_and_those_of_devices_end_the_executor() {
        let store = SourceError::Store { file: "a".to_owned(), source: "reset".into() };
        assert_eq!(kind(store), FailureKind::Transient);
        assert_eq!(kind(SinkError::Ids { source: io::Error::other("full") }), FailureKind::Transient);
        let disk = SourceError::Temporary { folder: "/tmp".to_owned(), source: io::Error::other("full") };
        assert_eq!(kind(disk), FailureKind::Transient);
        assert_eq!(kind(SourceError::Changed { file: "a".to_owned() }), FailureKind::Permanent);
        assert_eq!(kind(SinkError::NoTable { uri: "t".to_owned() }), FailureKind::Permanent);
        assert_eq!(kind(BackendError::Closed), FailureKind::Executor);
        assert_eq!(kind(io::Error::other("odd")), FailureKind::Transient);
        let changed = failure(&SourceError::Changed { file: "a".to_owned() }.into());
        assert_eq!(changed.message, "`a` changed while it was read: run again");
    }
}
