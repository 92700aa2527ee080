//! An annotation that receives a shutdown signal commits its finished rows.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::BoxFuture;
use polylance_backend::{AnnotateInput, Annotated, Annotator, Backend, BackendHandle, Result};
use polylance_engine::{AnnotationJob, AnnotationSummary, ShutdownSignal, run_job};
use polylance_schema::{Chunking, CommitPolicy, TaskSpec};
use polylance_testkit::{FakeAnnotator, FakeBackend, fake_contract, write_synthetic_parquet};
use polylance_tests::{fake_ner_contract, fake_pipeline};

const ROWS: u64 = 50_000;
const DIM: usize = 8;

/// The fake head; its third batch requests a shutdown.
#[derive(Debug)]
struct Stopping {
    head: FakeAnnotator,
    batches: AtomicUsize,
    shutdown: ShutdownSignal,
}

impl Annotator for Stopping {
    fn spec(&self) -> &TaskSpec {
        self.head.spec()
    }

    fn annotate(&self, inputs: Vec<AnnotateInput>) -> BoxFuture<'static, Result<Vec<Annotated>>> {
        if self.batches.fetch_add(1, Ordering::Relaxed) == 2 {
            self.shutdown.request();
        }
        self.head.annotate(inputs)
    }
}

async fn annotate(table: &str, stop_at: usize) -> AnnotationSummary {
    let (contract, shutdown) = (fake_ner_contract(), ShutdownSignal::default());
    let head = FakeAnnotator::new(contract.spec.clone());
    // One commit, at the end.
    let commit = CommitPolicy { rows: 10 * ROWS, seconds: 3600 };
    let job = AnnotationJob { table: table.to_owned(), column: "names".into(), contract, commit };
    let head = Stopping { head, batches: AtomicUsize::new(stop_at), shutdown: shutdown.clone() };
    job.open().await.unwrap().run(Arc::new(head), &shutdown, &mut |_| {}).await.unwrap()
}

#[tokio::test]
async fn stopped_annotation_commits_its_work_and_the_next_run_continues() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    write_synthetic_parquet(at("docs.parquet").as_ref(), ROWS).unwrap();
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
    let contract = fake_contract(DIM, Chunking::Truncate { max_tokens: 512 });
    let table = at("docs.lance");
    run_job(fake_pipeline(at("docs.parquet"), table.clone(), 100_000), BackendHandle(backend), contract, &mut ())
        .await
        .unwrap();

    let first = annotate(&table, 0).await;
    assert!(first.stopped && first.rows_annotated > 0 && first.rows_annotated < ROWS, "{first:?}");
    let second = annotate(&table, usize::MAX / 2).await;
    assert_eq!((second.stopped, second.rows_missing), (false, ROWS - first.rows_annotated));
    assert_eq!(second.rows_annotated, second.rows_missing);
}
