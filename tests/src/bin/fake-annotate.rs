//! Annotates a table with the fake head, and prints the summary.
//!
//! `fake-annotate make TABLE ROWS` makes a table of ROWS rows; `fake-annotate run TABLE ROWS_A_COMMIT` fills its
//! column `names`.
#![expect(clippy::print_stdout, reason = "the test that started it reads its output")]

use std::{env, error::Error, path::Path, sync::Arc};

use polylance_backend::{Backend, BackendHandle};
use polylance_cli::{
    annotation::AnnotationJob,
    job::{Job, Limits, run},
};
use polylance_dataflow::SourceSpec;
use polylance_schema::{
    Aggregation, Chunking, Contract, HeadContract, HeadInputs, Pooling, Prompts, TaskSpec, TextColumn,
};
use polylance_sink::{CommitPolicy, IndexKind, IndexSpec, UpkeepPolicy};
use polylance_testkit::{FakeAnnotator, FakeBackend, write_synthetic_parquet};

const DIM: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [command, table, rows] = &arguments[..] else { return Err("usage: fake-annotate make|run TABLE ROWS".into()) };
    let rows = rows.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = match command.as_str() {
        "make" => runtime.block_on(make(table, rows))?,
        _ => runtime.block_on(annotate(table, rows))?,
    };
    println!("{report}");
    Ok(())
}

async fn make(table: &str, rows: u64) -> Result<serde_json::Value, Box<dyn Error>> {
    let source = format!("{table}.parquet");
    write_synthetic_parquet(Path::new(&source), rows)?;
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
    let contract = Contract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        pooling: Pooling::Mean,
        normalize: false,
        prompts: Prompts::default(),
        chunking: Chunking::Truncate { max_tokens: 512 },
        dtype: "f32".into(),
        dim: DIM,
    };
    let job = Job {
        source: SourceSpec {
            uri: source,
            format: None,
            id: "id".into(),
            text: "text".into(),
            keep: vec![],
            max_bytes: 1 << 20,
        },
        table: table.to_owned(),
        text: TextColumn::Kept,
        commit: CommitPolicy { rows: 100_000, seconds: 3600 },
        index: IndexSpec { kind: IndexKind::None, ..IndexSpec::default() },
        upkeep: UpkeepPolicy::OFF,
        remove: false,
        alone: false,
        limits: Limits::NONE,
        memory: 1 << 30,
    };
    Ok(serde_json::to_value(run(job, BackendHandle(backend), contract, &mut ()).await?)?)
}

async fn annotate(table: &str, rows_a_commit: u64) -> Result<serde_json::Value, Box<dyn Error>> {
    let spec = TaskSpec::Ner { aggregation: Aggregation::Simple };
    let contract = HeadContract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        spec: spec.clone(),
        labels: vec!["NAME".into()],
        prefix: String::new(),
        inputs: HeadInputs::default(),
        dtype: "f32".into(),
    };
    let commit = CommitPolicy { rows: rows_a_commit, seconds: 3600 };
    let job = AnnotationJob { table: table.to_owned(), column: "names".into(), contract, commit };
    let open = job.open().await?;
    Ok(serde_json::to_value(open.run(Arc::new(FakeAnnotator::new(spec)), &mut |_| {}).await?)?)
}
