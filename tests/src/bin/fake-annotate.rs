//! Annotates a table with the fake head, and prints the summary.
//!
//! `fake-annotate make TABLE ROWS` creates a table of ROWS rows; `fake-annotate run TABLE ROWS_PER_COMMIT` fills its
//! column `names`.
#![expect(clippy::print_stdout, reason = "the test that started it reads its output")]

use std::{env, error::Error, path::Path, sync::Arc};

use polylance_backend::{Backend, BackendHandle};
use polylance_engine::{AnnotationJob, ShutdownSignal, run_job};
use polylance_schema::{Chunking, CommitPolicy};
use polylance_testkit::{FakeAnnotator, FakeBackend, fake_contract, write_synthetic_parquet};
use polylance_tests::{fake_ner_contract, fake_pipeline};

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
    let contract = fake_contract(DIM, Chunking::Truncate { max_tokens: 512 });
    let job = fake_pipeline(source, table.to_owned(), 100_000);
    Ok(serde_json::to_value(run_job(job, BackendHandle(backend), contract, &mut ()).await?)?)
}

async fn annotate(table: &str, rows_per_commit: u64) -> Result<serde_json::Value, Box<dyn Error>> {
    let contract = fake_ner_contract();
    let spec = contract.spec.clone();
    let commit = CommitPolicy { rows: rows_per_commit, seconds: 3600 };
    let job = AnnotationJob { table: table.to_owned(), column: "names".into(), contract, commit };
    let open = job.open().await?;
    Ok(serde_json::to_value(
        open.run(Arc::new(FakeAnnotator::new(spec)), &ShutdownSignal::default(), &mut |_| {}).await?,
    )?)
}
