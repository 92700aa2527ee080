//! Runs on a cluster without a network: jobs that are lost, run twice or end unheard make the table of a local run, row
//! for row and in its order.

use std::{fs, path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::UInt64Type,
};
use polylance_backend::{Backend, BackendHandle};
use polylance_cluster::{ClusterSettings, Fate, InProcessEngine, SplitModel, SplitRunner};
use polylance_engine::{ClusterJob, ClusterOptions, Job, RunSummary, run_job};
use polylance_schema::{Chunking, Contract, Cut, OnMissing};
use polylance_sink::quarantine_uri;
use polylance_testkit::{FakeBackend, fake_contract};
use polylance_tests::{FakeModels, Row, fake_pipeline, read_table, strings, write_fake_corpus, write_parquet};
use tempfile::TempDir;

const DIM: usize = 8;
const SLOTS: usize = 2;
const COLUMNS: [&str; 9] =
    ["doc_id", "chunk", "char_start", "char_end", "text", "n_tokens", "truncated", "embedding", "content_hash"];

fn contract() -> Contract {
    fake_contract(DIM, Chunking::Split { max_tokens: 12, overlap: 2, cut: Cut::Word })
}

fn backend() -> BackendHandle {
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
    BackendHandle(backend)
}

/// A corpus of two formats, with refused rows of every kind, and with ids that two files have.
struct Corpus(TempDir);

impl Corpus {
    fn new() -> Self {
        let corpus = Self(tempfile::tempdir().unwrap());
        let docs = corpus.0.path().join("docs");
        fs::create_dir(&docs).unwrap();
        let rows: Vec<Row> =
            (0..300).map(|at| Row::new(format!("p{at}"), format!("{at} ").repeat(1 + at % 40))).collect();
        write_parquet(&docs.join("a.parquet"), &rows);
        let lines = corpus.0.path().join("docs.jsonl");
        write_fake_corpus(&lines, 600);
        let lines = fs::read_to_string(lines).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        for (number, part) in lines.chunks(71).enumerate() {
            fs::write(docs.join(format!("part-{number}.jsonl")), part.join("\n")).unwrap();
        }
        let repeated = "{\"id\":\"p1\",\"text\":\"again\"}\n{\"id\":\"d100\",\"text\":\"again\"}\n{\"id\":\"z\",\"text\":\"end\"}\n";
        fs::write(docs.join("z.jsonl"), repeated).unwrap();
        corpus
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn job(&self, table: &str) -> Job {
        fake_pipeline(self.path("docs"), self.path(table), 150)
    }
}

fn engine(fate: fn(usize) -> Fate, contract: Contract) -> Arc<InProcessEngine> {
    Arc::new(InProcessEngine::new(runner(contract), SLOTS).with_fate(fate))
}

fn runner(contract: Contract) -> SplitRunner {
    let models = FakeModels(SplitModel { backend: backend(), contract });
    SplitRunner::new(Arc::new(models), "here".to_owned())
}

fn on_cluster(job: Job, engine: Arc<InProcessEngine>, split_bytes: u64) -> Job {
    let settings = ClusterSettings { split_bytes, patience: Duration::from_secs(10), shared_files: true };
    let cluster = ClusterJob { options: ClusterOptions { engine, settings }, pipeline: String::new() };
    Job { cluster: Some(cluster), ..job }
}

async fn run(job: Job) -> RunSummary {
    run_job(job, backend(), contract(), &mut ()).await.unwrap()
}

/// The rows of a table in their order, without its metadata, and those of its quarantine in any.
fn contents(table: &str) -> (Vec<ArrayRef>, Vec<String>) {
    let quarantine = quarantine_uri(table);
    let mut refused = Vec::new();
    if Path::new(&quarantine).exists() {
        let batch = read_table(&quarantine, &["source", "row", "stage", "error"]);
        let rows = batch["row"].as_primitive::<UInt64Type>().values().to_vec();
        let (sources, stages, errors) = (strings(&batch, "source"), strings(&batch, "stage"), strings(&batch, "error"));
        let records = sources.iter().zip(rows).zip(stages.iter().zip(errors));
        refused.extend(records.map(|((source, row), (stage, error))| format!("{source}#{row} {stage}: {error}")));
    }
    refused.sort();
    (read_table(table, &COLUMNS).columns().to_vec(), refused)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn every_job_runs(_: usize) -> Fate {
    Fate::Runs
}

fn every_third_job_is_lost(number: usize) -> Fate {
    if number % 3 == 1 { Fate::Lost } else { Fate::Runs }
}

fn one_job_ends_unheard(number: usize) -> Fate {
    if number == 3 { Fate::Unheard } else { Fate::Runs }
}

#[test]
fn a_cluster_makes_the_table_of_a_local_run_in_its_order() {
    let corpus = Corpus::new();
    let local = runtime().block_on(run(corpus.job("local.lance")));
    let expected = contents(&corpus.path("local.lance"));
    assert!(expected.1.iter().any(|record| record.contains("duplicate id \"d100\"")), "{:?}", expected.1);
    for (name, fate, bytes) in [
        ("one.lance", every_job_runs as fn(usize) -> Fate, 1 << 30),
        ("many.lance", every_job_runs, 1),
        ("lost.lance", every_third_job_is_lost, 4_000),
        ("unheard.lance", one_job_ends_unheard, 4_000),
    ] {
        let summary = runtime().block_on(async {
            let engine = engine(fate, contract());
            let summary = run(on_cluster(corpus.job(name), Arc::clone(&engine), bytes)).await;
            assert!(engine.submitted() >= if bytes > 1 << 20 { 1 } else { 8 });
            summary
        });
        let found = contents(&corpus.path(name));
        assert_eq!(found.0, expected.0, "{name}");
        assert_eq!(found.1, expected.1, "{name}");
        let counts = |run: &RunSummary| (run.rows_read, run.rows_written, run.chunks_written, run.rows_quarantined);
        assert_eq!(counts(&summary), counts(&local), "{name}");
        assert_eq!((summary.tokens, summary.bytes_total), (local.tokens, local.bytes_total));
        // Nothing is left next to the table.
        let outbox = corpus.path(&name.replace(".lance", ".outbox"));
        let left = walk(outbox.as_ref());
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The files below a folder.
fn walk(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    files.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path.display().to_string()] }).collect()
}

#[test]
fn equal_texts_are_one_document_over_splits_and_their_ids_are_compared_first() {
    let corpus = Corpus::new();
    let by_content = |table: &str| {
        let mut job = corpus.job(table);
        job.source.id = "@content".to_owned();
        job
    };
    runtime().block_on(run(by_content("local.lance")));
    let engine = runtime().block_on(async {
        let engine = engine(every_job_runs, contract());
        run(on_cluster(by_content("cluster.lance"), Arc::clone(&engine), 4_000)).await;
        engine
    });
    let (expected, found) = (contents(&corpus.path("local.lance")), contents(&corpus.path("cluster.lance")));
    assert_eq!(found, expected);
    // Eleven files, each with a task for its ids and one for its rows.
    assert!(engine.submitted() >= 22, "{}", engine.submitted());
}

#[test]
fn a_second_run_embeds_what_changed_and_removes_what_is_gone() {
    let corpus = Corpus::new();
    let job = |table: &str| Job { on_missing: OnMissing::Delete, reread: true, ..corpus.job(table) };
    let both = |name: &'static str| {
        let local = runtime().block_on(run(job("local.lance")));
        let clustered = runtime()
            .block_on(async { run(on_cluster(job("cluster.lance"), engine(every_job_runs, contract()), 4_000)).await });
        let counts = |run: &RunSummary| (run.rows_read, run.rows_skipped, run.rows_written, run.documents_removed);
        assert_eq!(counts(&clustered), counts(&local), "{name}");
        let (expected, found) = (contents(&corpus.path("local.lance")), contents(&corpus.path("cluster.lance")));
        assert_eq!(found, expected, "{name}");
        clustered
    };
    assert!(both("new").rows_written > 700);
    assert_eq!(both("unchanged").rows_written, 0);
    let docs = corpus.0.path().join("docs");
    fs::remove_file(docs.join("part-2.jsonl")).unwrap();
    fs::write(docs.join("z.jsonl"), "{\"id\":\"z\",\"text\":\"another end\"}\n").unwrap();
    let changed = both("changed");
    assert!(changed.documents_removed > 50 && changed.rows_written >= 1, "{changed:?}");
}

#[test]
fn a_source_without_files_needs_no_executor_and_removes_all_documents() {
    let folder = tempfile::tempdir().unwrap();
    let docs = folder.path().join("docs/lang=fr");
    fs::create_dir_all(&docs).unwrap();
    fs::write(docs.join("a.jsonl"), "{\"id\":\"a\",\"text\":\"un\"}\n").unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let job = Job { on_missing: OnMissing::Delete, reread: true, ..fake_pipeline(path("docs"), path("t.lance"), 150) };
    let summary = runtime().block_on(async {
        run(on_cluster(job.clone(), engine(every_job_runs, contract()), 4_000)).await;
        // The condition leaves no file.
        let mut job = on_cluster(job, Arc::new(InProcessEngine::new(runner(contract()), 0)), 4_000);
        job.source.condition = Some("lang = 'de'".to_owned());
        run(job).await
    });
    assert_eq!((summary.rows_read, summary.documents_removed), (0, 1));
}

#[test]
fn an_executor_with_another_model_fails_the_run_with_the_difference() {
    let corpus = Corpus::new();
    let error = runtime().block_on(async {
        let other = fake_contract(DIM, Chunking::Truncate { max_tokens: 12 });
        let job = on_cluster(corpus.job("refused.lance"), engine(every_job_runs, other), 4_000);
        run_job(job, backend(), contract(), &mut ()).await.unwrap_err()
    });
    let explained = polylance_engine::explain(&error);
    let message = explained.messages.join(": ");
    assert!(message.contains("the executor on here was refused") && message.contains("chunking is"), "{message}");
    assert!(explained.hint.is_some_and(|hint| hint.contains("same version of polylance")));
}

#[test]
fn local_files_need_the_word_of_the_user_that_they_are_shared() {
    let corpus = Corpus::new();
    let error = runtime().block_on(async {
        let mut job = on_cluster(corpus.job("refused.lance"), engine(every_job_runs, contract()), 4_000);
        if let Some(cluster) = &mut job.cluster {
            cluster.options.settings.shared_files = false;
        }
        run_job(job, backend(), contract(), &mut ()).await.unwrap_err()
    });
    assert!(error.to_string().contains("its files are on the disks of this machine"), "{error}");
    assert!(polylance_engine::explain(&error).hint.is_some_and(|hint| hint.contains("shared_files")));
}
