//! Runs the whole job over synthetic rows with the fake device, and prints the summary with its own peak memory and the
//! seconds that each tenth of the rows took.
//!
//! `fake-run FOLDER ROWS`
#![expect(clippy::print_stdout, reason = "the test that started it reads its output")]

use std::{env, error::Error, fs, path::Path, sync::Arc, time::Instant};

use polylance_backend::{Backend, BackendHandle};
use polylance_cli::job::{Job, Limits, Observer, run};
use polylance_dataflow::SourceSpec;
use polylance_schema::{Chunking, Contract, Cut, Pooling, Prompts, TextColumn};
use polylance_sink::{CommitPolicy, IndexKind, IndexSpec, UpkeepPolicy};
use polylance_testkit::{FakeBackend, write_synthetic_parquet};

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
    let contract = Contract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        pooling: Pooling::Mean,
        normalize: false,
        prompts: Prompts::default(),
        chunking: Chunking::Split { max_tokens: 512, overlap: 0, cut: Cut::Sentence },
        dtype: "f32".into(),
        dim: DIM,
    };
    let job = Job {
        source: SourceSpec {
            uri: source.display().to_string(),
            format: None,
            id: "id".into(),
            text: "text".into(),
            keep: vec!["lang".into()],
            max_bytes: 1 << 20,
        },
        table: folder.join("out.lance").display().to_string(),
        text: TextColumn::Kept,
        commit: CommitPolicy { rows: 20_000, seconds: 3600 },
        index: IndexSpec { kind: IndexKind::None, ..IndexSpec::default() },
        upkeep: UpkeepPolicy::OFF,
        remove: false,
        alone: false,
        limits: Limits::NONE,
        memory: 1 << 30,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut tenths = Tenths { rows, since: Instant::now(), seconds: Vec::new() };
    let summary = runtime.block_on(run(job, BackendHandle(backend), contract, &mut tenths))?;
    let mut report = serde_json::to_value(&summary)?;
    report["tenths"] = tenths.seconds.into();
    report["peak_kib"] = peak_kib()?.into();
    println!("{report}");
    Ok(())
}

/// Takes the time of each tenth of the rows, as they are committed.
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

/// Peak resident memory of this process, as the kernel counts it.
fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
