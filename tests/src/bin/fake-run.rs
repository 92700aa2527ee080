//! Runs the whole job over synthetic rows with the fake device, and prints the summary with its own peak memory.
//!
//! `fake-run FOLDER ROWS`
#![expect(clippy::print_stdout, reason = "the test that started it reads its output")]

use std::{env, error::Error, fs, path::Path, sync::Arc};

use polylance_backend::{Backend, BackendHandle};
use polylance_cli::job::{Job, run};
use polylance_dataflow::SourceSpec;
use polylance_schema::{Chunking, Contract, Cut, Pooling, Prompts, TextColumn};
use polylance_sink::{CommitPolicy, IndexKind, IndexSpec};
use polylance_testkit::{FakeBackend, write_synthetic_parquet};

const DIM: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, rows] = &arguments[..] else { return Err("usage: fake-run FOLDER ROWS".into()) };
    let folder = Path::new(folder);
    let source = folder.join("docs.parquet");
    write_synthetic_parquet(&source, rows.parse()?)?;

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
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let summary = runtime.block_on(run(job, BackendHandle(backend), contract, &mut ()))?;
    let mut report = serde_json::to_value(&summary)?;
    report["peak_kib"] = peak_kib()?.into();
    println!("{report}");
    Ok(())
}

/// Peak resident memory of this process, as the kernel counts it.
fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
