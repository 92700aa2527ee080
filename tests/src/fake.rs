//! The job of the helper programs on the fake device.

use polylance_dataflow::SourceSpec;
use polylance_engine::{Job, Limits};
use polylance_schema::{
    Aggregation, CommitPolicy, HeadContract, IndexKind, MaintenancePolicy, OnMissing, TaskSpec, TextColumn,
    WriteConcurrency,
};
use polylance_sink::IndexSpec;
use polylance_testkit::fake_head_contract;

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
