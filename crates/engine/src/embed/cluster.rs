//! Embedding on a cluster: what a run sends, and the models of an executor.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::physical_plan::ExecutionPlan;
use polylance_cluster::{
    ClusterError, ClusterExec, ClusterSettings, ClusterSpec, Engine, ModelFailure, Models, SplitModel, shared_address,
};
use polylance_config::{Cluster, Pipeline};
use polylance_dataflow::Source;
use polylance_schema::{Contract, Dtype, ErrorClass};
use polylance_sink::{LanceCommitExec, TableTarget};
use tokio::sync::Mutex;

use super::{backend::PipelineBackend, job::Job};
use crate::{
    EngineError, Explanation, UsageError, explain,
    models::{CopyCheck, find_checked},
    resolve,
};

/// A cluster, and how a run uses it.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The queue of its executors.
    pub engine: Arc<dyn Engine>,
    /// Settings of the run.
    pub settings: ClusterSettings,
}

impl ClusterOptions {
    /// The settings of a pipeline.
    pub fn new(engine: Arc<dyn Engine>, cluster: &Cluster) -> Self {
        let settings = ClusterSettings {
            split_bytes: cluster.split.0,
            patience: Duration::from_secs(cluster.patience),
            shared_files: cluster.shared_files,
        };
        Self { engine, settings }
    }
}

/// A cluster for one job.
#[derive(Debug, Clone)]
pub struct ClusterJob {
    /// The cluster.
    pub options: ClusterOptions,
    /// The pipeline as executors read it.
    pub pipeline: String,
}

impl ClusterJob {
    /// The cluster for the job of a pipeline, whose vectors have this dtype.
    pub(super) fn new(options: ClusterOptions, pipeline: &Pipeline, dtype: Dtype) -> Result<Self, EngineError> {
        let mut sent = pipeline.clone();
        sent.model.dtype = Some(dtype);
        // The limit is for the memory of this machine.
        sent.model.memory = None;
        sent.table.uri = shared_address(&sent.table.uri);
        let unwritable = |error: serde_json::Error| ClusterError::Format {
            what: "the pipeline".to_owned(),
            message: error.to_string(),
        };
        Ok(Self { options, pipeline: serde_json::to_string(&sent).map_err(unwritable)? })
    }

    /// The plan of a run: the cluster embeds, and this machine commits.
    pub(super) fn plan(
        self,
        source: Source,
        target: TableTarget,
        known_version: Option<u64>,
        memory: usize,
    ) -> Result<Arc<dyn ExecutionPlan>, EngineError> {
        let Self { options: ClusterOptions { engine, settings }, pipeline } = self;
        let spec = ClusterSpec { engine, settings, pipeline, target: target.clone(), known_version, memory };
        let embedded = Arc::new(ClusterExec::try_new(source, spec)?);
        Ok(Arc::new(LanceCommitExec::try_new(embedded, target)?))
    }
}

impl Job {
    /// Refuses settings that contradict a cluster.
    pub(super) fn check_cluster(&self) -> Result<(), UsageError> {
        if self.cluster.is_none() || self.shard.is_none() {
            return Ok(());
        }
        let error = UsageError::new("a cluster embeds the whole source, and --shard a part of it");
        Err(error.with_hint("leave out one of --cluster and --shard"))
    }
}

/// The models of an executor, on its own devices. The last one stays open.
pub struct ExecutorModels {
    devices: Vec<String>,
    open: Mutex<Option<(String, SplitModel)>>,
}

impl ExecutorModels {
    /// Models on these devices.
    pub fn new(devices: Vec<String>) -> Self {
        Self { devices, open: Mutex::new(None) }
    }

    /// Looks for the files of models, and downloads them if they are elsewhere.
    ///
    /// # Errors
    /// [`EngineError`] if a model is not found.
    pub async fn find(&self, models: &[String]) -> Result<(), EngineError> {
        for model in models {
            Box::pin(find_checked(model, CopyCheck::Weights)).await?;
        }
        Ok(())
    }

    async fn open_for(&self, mut pipeline: Pipeline) -> Result<SplitModel, EngineError> {
        pipeline.model.devices.clone_from(&self.devices);
        let selection = resolve::select(&pipeline).await?;
        let PipelineBackend { backend, contract, .. } = Box::pin(PipelineBackend::open(&pipeline, &selection)).await?;
        Ok(SplitModel { backend, contract })
    }
}

impl fmt::Debug for ExecutorModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorModels").field("devices", &self.devices).finish_non_exhaustive()
    }
}

#[async_trait]
impl Models for ExecutorModels {
    async fn open(&self, pipeline: &str, run: &Contract) -> Result<SplitModel, ModelFailure> {
        let unreadable = |error: serde_json::Error| ModelFailure {
            message: format!("the pipeline of the run cannot be read: {error}"),
            hint: Some("use the same version of polylance on all machines".to_owned()),
            class: ErrorClass::User,
        };
        let pipeline: Pipeline = serde_json::from_str(pipeline).map_err(unreadable)?;
        let key = model_key(&pipeline, run).map_err(unreadable)?;
        // One model is opened at a time, and others wait for it.
        let mut open = self.open.lock().await;
        if let Some((_, model)) = open.as_ref().filter(|(known, _)| *known == key) {
            return Ok(model.clone());
        }
        // The devices of the model before are free once its last split ends.
        *open = None;
        let model = Box::pin(self.open_for(pipeline)).await.map_err(|error| {
            let Explanation { messages, hint, class } = explain(&error);
            ModelFailure { message: messages.join(": "), hint, class: class.unwrap_or(ErrorClass::Environment) }
        })?;
        *open = Some((key, model.clone()));
        Ok(model)
    }
}

/// What decides the model of a run: of its pipeline all but the source and the run. The table decides how its tokenizer
/// reads text, and one that is made again may decide otherwise.
fn model_key(pipeline: &Pipeline, contract: &Contract) -> Result<String, serde_json::Error> {
    let Pipeline { model, chunk, table, annotate, run, .. } = pipeline;
    serde_json::to_string(&(model, chunk, &table.uri, annotate, run.stall, &contract.tokenizer_hash))
}

#[cfg(test)]
mod tests {
    use polylance_cluster::{JobId, JobStatus};
    use polylance_config::{ByteSize, Source, Table};
    use polylance_schema::Chunking;
    use polylance_testkit::fake_contract;

    use super::*;

    #[test]
    fn the_model_stays_open_for_another_source_of_the_same_table() {
        let pipeline = |source: &str, table: &str| Pipeline::new(Source::new(source), Table::new(table));
        let mut contract = fake_contract(4, Chunking::Truncate { max_tokens: 32 });
        let key = |source, table| model_key(&pipeline(source, table), &contract).unwrap();
        let first = key("a", "t");
        assert_eq!(first, key("b", "t"));
        assert_ne!(first, key("a", "u"));
        contract.tokenizer_hash = "another".to_owned();
        assert_ne!(first, model_key(&pipeline("a", "t"), &contract).unwrap());
    }

    #[test]
    fn a_sent_pipeline_is_read_as_it_was_and_names_what_this_machine_decided() {
        let mut pipeline = Pipeline::new(Source::new("s3://b/docs"), Table::new("docs.lance"));
        pipeline.source.condition = Some("lang = 'fr'".to_owned());
        pipeline.model.memory = Some(ByteSize(1 << 30));
        let settings = ClusterOptions::new(Arc::new(NoEngine), &pipeline.cluster);
        assert_eq!(settings.settings.patience, Duration::from_mins(10));
        let sent = ClusterJob::new(settings, &pipeline, Dtype::F32).unwrap().pipeline;
        let read: Pipeline = serde_json::from_str(&sent).unwrap();
        assert!(read.table.uri.starts_with('/') && read.table.uri.ends_with("/docs.lance"));
        assert_eq!((read.model.dtype, read.model.memory, read.source), (Some(Dtype::F32), None, pipeline.source));
    }

    #[derive(Debug)]
    struct NoEngine;

    #[async_trait]
    impl Engine for NoEngine {
        async fn slots(&self) -> Result<usize, ClusterError> {
            Ok(0)
        }

        async fn submit(&self, _: &str, _: Arc<[u8]>) -> Result<JobId, ClusterError> {
            Ok(JobId(String::new()))
        }

        async fn status(&self, _: &JobId) -> Result<JobStatus, ClusterError> {
            Ok(JobStatus::Lost)
        }

        async fn cancel(&self, _: &JobId) -> Result<(), ClusterError> {
            Ok(())
        }
    }
}
