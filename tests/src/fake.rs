//! The job of the helper programs on the fake device, and the model of their clusters.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use polylance_backend::{Backend, BackendHandle};
use polylance_cluster::{ModelFailure, Models, SplitModel};
use polylance_dataflow::SourceSpec;
use polylance_engine::{Job, Limits};
use polylance_schema::{
    Aggregation, Chunking, CommitPolicy, Contract, Cut, HeadContract, IndexKind, MaintenancePolicy, OnMissing,
    TaskSpec, TextColumn, WriteConcurrency,
};
use polylance_sink::IndexSpec;
use polylance_testkit::{FakeBackend, fake_contract, fake_head_contract};

const PACED_DIM: usize = 64;

/// A job from `source` into `table` with commits of `rows_per_commit` rows, without index, maintenance and limits.
pub fn fake_pipeline(source: String, table: String, rows_per_commit: u64) -> Job {
    Job {
        source: SourceSpec { max_bytes: 1 << 20, ..SourceSpec::new(source) },
        table,
        text: TextColumn::Kept,
        commit: CommitPolicy { rows: rows_per_commit, seconds: 3600 },
        index: IndexSpec { kind: IndexKind::None, ..IndexSpec::default() },
        upkeep: MaintenancePolicy::OFF,
        on_missing: OnMissing::Keep,
        concurrency: WriteConcurrency::Merge,
        reread: false,
        shard: None,
        cluster: None,
        limits: Limits::NONE,
        memory: 1 << 30,
    }
}

/// The contract of the fake head, which finds names.
pub fn fake_ner_contract() -> HeadContract {
    fake_head_contract(TaskSpec::Ner { aggregation: Aggregation::Simple })
}

/// The model of `fake-driver` and `fake-executor`, on a device that is busy for this long with each token.
pub fn paced_model(per_token: Duration) -> SplitModel {
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(PACED_DIM).with_pace(per_token));
    let contract = fake_contract(PACED_DIM, Chunking::Split { max_tokens: 512, overlap: 0, cut: Cut::Sentence });
    SplitModel { backend: BackendHandle(backend), contract }
}

/// One model for all runs of a cluster.
#[derive(Debug)]
pub struct FakeModels(pub SplitModel);

#[async_trait]
impl Models for FakeModels {
    async fn open(&self, _: &str, _: &Contract) -> Result<SplitModel, ModelFailure> {
        Ok(self.0.clone())
    }
}
