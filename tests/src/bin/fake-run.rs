//! Runs the whole job over synthetic rows with the fake device, and prints the summary with the seconds that each tenth
//! of the rows took.
//!
//! `fake-run FOLDER ROWS`
#![expect(clippy::print_stdout, reason = "the test that started it reads its output")]

use std::{env, error::Error, path::Path, sync::Arc, time::Instant};

use polylance_backend::{Backend, BackendHandle};
use polylance_engine::{Observer, run_job};
use polylance_schema::{Chunking, Cut};
use polylance_testkit::{FakeBackend, fake_contract, write_synthetic_parquet};
use polylance_tests::fake_pipeline;

const DIM: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, rows] = &arguments[..] else { return Err("usage: fake-run FOLDER ROWS".into()) };
    let folder = Path::new(folder);
    let source = folder.join("docs.parquet");
    let rows = rows.parse()?;
    if !source.exists() {
        write_synthetic_parquet(&source, rows)?;
    }

    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
    let contract = fake_contract(DIM, Chunking::Split { max_tokens: 512, overlap: 0, cut: Cut::Sentence });
    let path = |name: &str| folder.join(name).display().to_string();
    let mut job = fake_pipeline(path("docs.parquet"), path("out.lance"), 20_000);
    job.source.keep = vec!["lang".into()];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut tenths = Tenths { rows, since: Instant::now(), seconds: Vec::new() };
    let summary = runtime.block_on(run_job(job, BackendHandle(backend), contract, &mut tenths))?;
    let mut report = serde_json::to_value(&summary)?;
    report["tenths"] = tenths.seconds.into();
    println!("{report}");
    Ok(())
}

/// Measures the time of each tenth of the rows, as they are committed.
struct Tenths {
    rows: u64,
    since: Instant,
    seconds: Vec<f64>,
}

impl Observer for Tenths {
    fn committed(&mut self, documents: u64) {
        while documents * 10 >= self.rows * (self.seconds.len() as u64 + 1) && self.seconds.len() < 10 {
            self.seconds.push(self.since.elapsed().as_secs_f64());
            self.since = Instant::now();
        }
    }
}
