//! The job of the fake device, as the helper programs vary it.

use polylance_dataflow::SourceSpec;
use polylance_engine::{Job, Limits};
use polylance_schema::{
    Aggregation, Chunking, CommitPolicy, Contract, HeadContract, HeadInputs, IndexKind, OnMissing, Pooling, Prompts,
    TaskSpec, TextColumn, WriteConcurrency,
};
use polylance_sink::{IndexSpec, UpkeepPolicy};

/// A job from `source` into `table` with commits of so many rows, without index, upkeep and limits.
pub fn fake_pipeline(source: String, table: String, rows_a_commit: u64) -> Job {
    Job {
        source: SourceSpec {
            uri: source,
            format: None,
            id: "id".into(),
            text: "text".into(),
            keep: Vec::new(),
            max_bytes: 1 << 20,
            csv: polylance_dataflow::CsvSpec::default(),
            memory: 1 << 30,
        },
        table,
        text: TextColumn::Kept,
        commit: CommitPolicy { rows: rows_a_commit, seconds: 3600 },
        index: IndexSpec { kind: IndexKind::None, ..IndexSpec::default() },
        upkeep: UpkeepPolicy::OFF,
        on_missing: OnMissing::Keep,
        concurrency: WriteConcurrency::Merge,
        reread: false,
        limits: Limits::NONE,
        memory: 1 << 30,
    }
}

/// The contract of the fake device's vectors.
pub fn fake_contract(dim: usize, chunking: Chunking) -> Contract {
    Contract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        pooling: Pooling::Mean,
        normalize: false,
        prompts: Prompts::default(),
        chunking,
        dtype: "f32".into(),
        dim,
    }
}

/// The contract of the fake head, which finds names.
pub fn fake_head() -> HeadContract {
    HeadContract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        spec: TaskSpec::Ner { aggregation: Aggregation::Simple },
        labels: vec!["NAME".into()],
        prefix: String::new(),
        inputs: HeadInputs::default(),
        dtype: "f32".into(),
    }
}
