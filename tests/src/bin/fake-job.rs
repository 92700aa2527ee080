//! Runs the whole job over a source with the fake device and a fake head, in small commits and with an index, and
//! prints the summary.
//!
//! `fake-job SOURCE TABLE ROWS_PER_COMMIT [SHARD]`
#![expect(clippy::print_stdout, reason = "the test that started it reads its output")]

use std::{env, error::Error, sync::Arc};

use polylance_backend::{Backend, BackendHandle};
use polylance_engine::Job;
use polylance_schema::{Chunking, Cut, IndexKind, MaintenancePolicy};
use polylance_sink::IndexSpec;
use polylance_testkit::{FakeBackend, fake_contract};
use polylance_tests::{fake_ner_contract, fake_pipeline};

const DIM: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [source, table, rows, shard @ ..] = &arguments[..] else {
        return Err("usage: fake-job SOURCE TABLE ROWS_PER_COMMIT [SHARD]".into());
    };
    let job = Job {
        shard: shard.first().map(|shard| shard.parse()).transpose()?,
        index: IndexSpec { kind: IndexKind::IvfFlat, min_rows: 500, ..IndexSpec::default() },
        upkeep: MaintenancePolicy { compact: true, ..MaintenancePolicy::OFF },
        ..fake_pipeline(source.clone(), table.clone(), rows.parse()?)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{}", runtime.block_on(run(job))?);
    Ok(())
}

async fn run(job: Job) -> Result<serde_json::Value, Box<dyn Error>> {
    let head = fake_ner_contract();
    let column = head.field("names").ok_or("the task has no column")?;
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM).with_heads(vec![head.spec]));
    let contract = fake_contract(DIM, Chunking::Split { max_tokens: 12, overlap: 2, cut: Cut::Word });
    let planned = job.open().await?.plan(&BackendHandle(backend), contract, vec![Arc::new(column)]).await?;
    planned.declare().await?;
    Ok(serde_json::to_value(planned.run(&mut ()).await?)?)
}
