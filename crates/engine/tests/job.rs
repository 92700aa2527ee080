//! Jobs on the fake device, called as a library.
#![expect(clippy::format_collect, reason = "a small corpus, written once")]

use std::sync::Arc;

use polylance_backend::{Backend, BackendHandle};
use polylance_dataflow::SourceSpec;
use polylance_engine::{Job, Limits, Observer, RunSummary, SourceProgress, Stage, run_job};
use polylance_schema::{Chunking, CommitPolicy, Contract, MaintenancePolicy, OnMissing, TextColumn, WriteConcurrency};
use polylance_sink::{IndexSpec, MaintenanceReport};
use polylance_testkit::{FakeBackend, fake_contract};
use tempfile::TempDir;

const DIM: usize = 8;

fn contract() -> Contract {
    fake_contract(DIM, Chunking::Truncate { max_tokens: 32 })
}

/// Writes `rows` documents as JSON lines and makes the job that embeds them.
fn job(folder: &TempDir, rows: usize) -> Job {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lines: String = (0..rows).map(|n| format!("{{\"id\":\"{n}\",\"text\":\"document number {n}\"}}\n")).collect();
    std::fs::write(path("docs.jsonl"), lines).unwrap();
    Job {
        source: SourceSpec::new(path("docs.jsonl")),
        table: path("docs.lance"),
        text: TextColumn::Kept,
        commit: CommitPolicy { rows: 100, seconds: 0 },
        index: IndexSpec::default(),
        upkeep: MaintenancePolicy::default(),
        on_missing: OnMissing::Keep,
        concurrency: WriteConcurrency::Merge,
        reread: false,
        shard: None,
        cluster: None,
        limits: Limits::NONE,
        memory: 1 << 30,
    }
}

async fn run(job: Job, observer: &mut dyn Observer) -> RunSummary {
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
    run_job(job, BackendHandle(backend), contract(), observer).await.unwrap()
}

#[derive(Default)]
struct Recorder {
    stages: Vec<Stage>,
    committed: Vec<u64>,
    last: SourceProgress,
}

impl Observer for Recorder {
    fn stage(&mut self, stage: Stage) {
        self.stages.push(stage);
    }

    fn progress(&mut self, progress: &SourceProgress) {
        self.last = *progress;
    }

    fn committed(&mut self, documents: u64) {
        self.committed.push(documents);
    }
}

#[tokio::test]
async fn second_run_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(job(&folder, 250), &mut ()).await;
    assert_eq!((first.rows_read, first.rows_written, first.chunks_written), (250, 250, 250));
    let second = run(job(&folder, 250), &mut ()).await;
    assert_eq!((second.rows_read, second.rows_skipped, second.rows_written), (250, 250, 0));
    assert_eq!((second.tokens, second.version), (0, first.version));
    assert_ne!(second.run_id, first.run_id);
}

#[tokio::test]
async fn observer_receives_each_commit_and_stage() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    let summary = run(job(&folder, 250), &mut recorder).await;
    assert_eq!(recorder.stages, [Stage::Embedding, Stage::Indexing]);
    assert_eq!(recorder.committed, [100, 200, 250]);
    assert!(recorder.last.rows_read <= summary.rows_read);
}

#[tokio::test]
async fn dropped_run_leaves_complete_commits_and_the_next_continues() {
    struct CommitSender(tokio::sync::mpsc::UnboundedSender<u64>);
    impl Observer for CommitSender {
        fn committed(&mut self, documents: u64) {
            let _sent = self.0.send(documents);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut commits) = tokio::sync::mpsc::unbounded_channel();
    let mut observer = CommitSender(sender);
    let committed = tokio::select! {
        biased;
        committed = commits.recv() => committed.unwrap(),
        _ = run(job(&folder, 5000), &mut observer) => unreachable!("fifty commits come after the first"),
    };
    assert!(committed < 5000);
    let rest = run(job(&folder, 5000), &mut ()).await;
    assert!(rest.rows_skipped >= committed, "{} of {committed}", rest.rows_skipped);
    assert_eq!(rest.rows_skipped + rest.rows_written, 5000);
    let complete = run(job(&folder, 5000), &mut ()).await;
    assert_eq!(complete.rows_skipped, 5000);
}

#[tokio::test]
async fn run_merges_the_fragments_of_its_commits_and_keeps_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let job = |rows| Job { commit: CommitPolicy { rows: 10, seconds: 0 }, ..job(&folder, rows) };
    let first = run(job(200), &mut ()).await;
    assert_eq!((first.upkeep.fragments_merged, first.upkeep_failure.as_deref()), (20, None));
    let second = run(job(250), &mut ()).await;
    assert_eq!((second.rows_skipped, second.rows_written, second.upkeep.fragments_merged), (200, 50, 0));
    let off = Job { upkeep: MaintenancePolicy::OFF, ..job(400) };
    assert_eq!(run(off, &mut ()).await.upkeep, MaintenanceReport::default());
    let third = run(job(400), &mut ()).await;
    assert_eq!(
        (third.rows_skipped, third.upkeep.fragments_merged),
        (400, 0),
        "a run that writes nothing maintains nothing"
    );
    let fourth = run(job(401), &mut ()).await;
    assert_eq!((fourth.rows_skipped, fourth.rows_written, fourth.upkeep.fragments_merged), (400, 1, 22));
}
