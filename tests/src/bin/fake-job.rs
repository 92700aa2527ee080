//! Runs the whole job over a source with the fake device and a fake head, in small commits and with an index, and
//! prints the summary.
//!
//! `fake-job SOURCE TABLE ROWS_A_COMMIT`
#![expect(clippy::print_stdout, reason = "the test that started it reads its output")]

use std::{env, error::Error, sync::Arc};

use polylance_backend::{Backend, BackendHandle};
use polylance_cli::job::{Job, Limits};
use polylance_dataflow::SourceSpec;
use polylance_schema::{
    Aggregation, Chunking, Contract, Cut, HeadContract, HeadInputs, Pooling, Prompts, TaskSpec, TextColumn,
};
use polylance_sink::{CommitPolicy, IndexKind, IndexSpec, UpkeepPolicy};
use polylance_testkit::FakeBackend;

const DIM: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [source, table, rows] = &arguments[..] else { return Err("usage: fake-job SOURCE TABLE ROWS_A_COMMIT".into()) };
    let job = Job {
        source: SourceSpec {
            uri: source.clone(),
            format: None,
            id: "id".into(),
            text: "text".into(),
            keep: vec![],
            max_bytes: 1 << 20,
        },
        table: table.clone(),
        text: TextColumn::Kept,
        commit: CommitPolicy { rows: rows.parse()?, seconds: 3600 },
        index: IndexSpec { kind: IndexKind::IvfFlat, min_rows: 500, ..IndexSpec::default() },
        upkeep: UpkeepPolicy { compact: true, retention: None },
        remove: false,
        alone: false,
        limits: Limits::NONE,
        memory: 1 << 30,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{}", runtime.block_on(run(job))?);
    Ok(())
}

async fn run(job: Job) -> Result<serde_json::Value, Box<dyn Error>> {
    let spec = TaskSpec::Ner { aggregation: Aggregation::Simple };
    let head = HeadContract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        spec: spec.clone(),
        labels: vec!["NAME".into()],
        prefix: String::new(),
        inputs: HeadInputs::default(),
        dtype: "f32".into(),
    };
    let column = head.field("names").ok_or("the task has no column")?;
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM).with_heads(vec![spec]));
    let contract = Contract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        pooling: Pooling::Mean,
        normalize: false,
        prompts: Prompts::default(),
        chunking: Chunking::Split { max_tokens: 12, overlap: 2, cut: Cut::Word },
        dtype: "f32".into(),
        dim: DIM,
    };
    let planned = job.open().await?.plan(&BackendHandle(backend), contract, vec![Arc::new(column)])?;
    planned.declare().await?;
    Ok(serde_json::to_value(planned.run(&mut ()).await?)?)
}
