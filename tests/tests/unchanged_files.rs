//! Files that a run has finished are not read again, unless something makes their manifest uncertain.

mod ids_and_sql;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use lance::{Dataset, dataset::DeleteBuilder};
use polylance_backend::{Backend, BackendHandle};
use polylance_dataflow::RowSet;
use polylance_engine::{EngineError, Job, RunSummary, run_job};
use polylance_schema::{Chunking, IndexKind, MaintenancePolicy, OnMissing};
use polylance_sink::{IndexSpec, QuarantineFilter, compute_map, count_quarantined, quarantined_sources};
use polylance_testkit::{FakeBackend, fake_contract};
use polylance_tests::{Row, fake_pipeline, write_parquet};

const DIM: usize = 8;

struct Corpus {
    folder: tempfile::TempDir,
    began: SystemTime,
}

impl Corpus {
    fn of(files: &[(&str, &[&str])]) -> Self {
        let corpus = Self { folder: tempfile::tempdir().unwrap(), began: SystemTime::now() };
        fs::create_dir(corpus.path("docs")).unwrap();
        for (name, lines) in files {
            corpus.write(name, lines, 3600);
        }
        corpus
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of rows that is `age` seconds old.
    fn write(&self, name: &str, lines: &[&str], age: u64) {
        let path = self.path("docs").join(name);
        fs::write(&path, lines.join("\n")).unwrap();
        self.age(name, age);
    }

    /// Makes a file `seconds` older than the corpus.
    fn age(&self, name: &str, seconds: u64) {
        let file = File::options().append(true).open(self.path("docs").join(name)).unwrap();
        file.set_modified(self.began - Duration::from_secs(seconds)).unwrap();
    }

    fn job(&self) -> Job {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        fake_pipeline(text(&self.path("docs")), text(&self.path("docs.lance")), 1000)
    }

    async fn run(&self) -> RunSummary {
        Box::pin(self.run_as(self.job())).await
    }

    async fn run_as(&self, job: Job) -> RunSummary {
        self.try_run(job).await.unwrap()
    }

    async fn try_run(&self, job: Job) -> Result<RunSummary, EngineError> {
        let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
        let contract = fake_contract(DIM, Chunking::Truncate { max_tokens: 512 });
        run_job(job, BackendHandle(backend), contract, &mut ()).await
    }

    /// The number of rows in the quarantine.
    async fn quarantined_rows(&self) -> u64 {
        count_quarantined(&self.job().table, &QuarantineFilter::default()).await.unwrap()
    }

    async fn ids(&self) -> Vec<String> {
        let dataset = Dataset::open(self.path("docs.lance").to_str().unwrap()).await.unwrap();
        let rows = dataset.scan().project(&["doc_id"]).unwrap().try_into_batch().await.unwrap();
        let mut ids = polylance_tests::strings(&rows, "doc_id");
        ids.sort();
        ids
    }
}

const ONE: &str = r#"{"id": "1", "text": "one"}"#;
const TWO: &str = r#"{"id": "2", "text": "two"}"#;
const EMPTY: &str = r#"{"id": "1", "text": ""}"#;
const TEN: &str = r#"{"id": "1", "text": "ten"}"#;

#[tokio::test]
async fn unchanged_files_are_not_read_again() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE]), ("b.jsonl", &[TWO])]);
    let first = corpus.run().await;
    assert!(!first.source_unchanged && first.bytes_read > 0);
    let second = corpus.run().await;
    assert!(second.source_unchanged);
    assert_eq!((second.rows_read, second.rows_skipped, second.rows_written, second.bytes_read), (2, 2, 0, 0));
    assert_eq!((second.version, second.bytes_total), (first.version, first.bytes_total));
    assert_eq!(corpus.ids().await, ["1", "2"]);
}

#[tokio::test]
async fn new_changed_and_removed_files_are_noticed() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE])]);
    corpus.run().await;
    corpus.write("a.jsonl", &[TEN], 1800);
    let changed = corpus.run().await;
    assert_eq!((changed.source_unchanged, changed.rows_written), (false, 1), "the same size, another time");
    corpus.write("b.jsonl", &[TWO], 3600);
    let added = corpus.run().await;
    assert_eq!((added.source_unchanged, added.rows_skipped, added.rows_written), (false, 1, 1));
    let again = corpus.run().await;
    assert_eq!((again.source_unchanged, again.files_unchanged), (true, 2));
    fs::remove_file(corpus.path("docs/a.jsonl")).unwrap();
    let gone = corpus.run_as(Job { on_missing: OnMissing::Delete, ..corpus.job() }).await;
    assert_eq!((gone.source_unchanged, gone.documents_removed), (false, 1));
    let again = corpus.run_as(Job { on_missing: OnMissing::Delete, ..corpus.job() }).await;
    assert_eq!(
        (again.source_unchanged, again.documents_removed),
        (true, 0),
        "the run's own removal keeps the manifest valid"
    );
    assert_eq!(corpus.ids().await, ["2"]);
}

#[tokio::test]
async fn texts_of_unchanged_files_are_not_read() {
    let corpus = Corpus::of(&[]);
    for (name, ids) in [("a.parquet", ["1", "2"]), ("b.parquet", ["3", "4"])] {
        let rows = ids.map(|id| Row::new(id, format!("the text of document {id}")));
        write_parquet(&corpus.path("docs").join(name), &rows);
        corpus.age(name, 3600);
    }
    corpus.run().await;
    // Reading these texts now fails, but size and modification time are the same.
    let path = corpus.path("docs/a.parquet");
    let mut bytes = fs::read(&path).unwrap();
    let text = b"the text of document";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at - 4..at + 16].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    corpus.age("a.parquet", 3600);
    corpus.write("c.jsonl", &[r#"{"id": "5", "text": "five"}"#], 60);
    let next = corpus.run().await;
    assert_eq!((next.source_unchanged, next.files_unchanged), (false, 2));
    assert_eq!((next.rows_read, next.rows_skipped, next.rows_written, next.rows_quarantined), (5, 4, 1, 0));
    let all = corpus.run_as(Job { reread: true, ..corpus.job() }).await;
    assert_eq!((all.files_unchanged, all.rows_skipped, all.rows_quarantined), (0, 3, 1), "the text cannot be read");
}

#[tokio::test]
async fn id_of_an_unchanged_file_is_refused_in_a_new_file() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE]), ("b.jsonl", &[TWO])]);
    corpus.run().await;
    corpus.write("c.jsonl", &[TEN], 60);
    for expected in [2, 2] {
        let next = corpus.run().await;
        assert_eq!((next.files_unchanged, next.rows_written, next.rows_quarantined), (expected, 0, 1));
    }
}

#[tokio::test]
async fn only_files_with_quarantined_rows_are_read_again() {
    let bad = r#"{"id": null, "text": "nobody's"}"#;
    let corpus = Corpus::of(&[("a.jsonl", &[ONE]), ("b.jsonl", &[bad]), ("c.jsonl", &[TWO])]);
    for files_unchanged in [0, 2, 2] {
        let run = corpus.run().await;
        assert_eq!((run.source_unchanged, run.files_unchanged, run.rows_quarantined), (false, files_unchanged, 1));
    }
}

#[tokio::test]
async fn damaged_manifest_is_ignored() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE]), ("b.jsonl", &[TWO])]);
    corpus.run().await;
    let lists: Vec<_> = fs::read_dir(corpus.path("docs.sources")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(lists.len(), 1);
    fs::write(&lists[0], "anything\n").unwrap();
    corpus.write("c.jsonl", &[r#"{"id": "3", "text": "three"}"#], 60);
    let next = corpus.run().await;
    assert_eq!((next.files_unchanged, next.rows_skipped, next.rows_written), (0, 2, 1));
}

#[tokio::test]
async fn recently_modified_file_is_read_again() {
    let corpus = Corpus::of(&[]);
    corpus.write("a.jsonl", &[ONE], 0);
    corpus.run().await;
    assert!(!corpus.run().await.source_unchanged);
}

#[tokio::test]
async fn rows_deleted_by_others_are_written_again() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE, TWO])]);
    corpus.run().await;
    let dataset = Dataset::open(corpus.path("docs.lance").to_str().unwrap()).await.unwrap();
    DeleteBuilder::new(Arc::new(dataset), "doc_id = '2'").execute().await.unwrap();
    let next = corpus.run().await;
    assert_eq!((next.source_unchanged, next.rows_skipped, next.rows_written), (false, 1, 1));
    assert_eq!(corpus.ids().await, ["1", "2"]);
    assert!(corpus.run().await.source_unchanged);
}

#[tokio::test]
async fn deleted_table_is_rebuilt() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE])]);
    corpus.run().await;
    fs::remove_dir_all(corpus.path("docs.lance")).unwrap();
    let next = corpus.run().await;
    assert_eq!((next.source_unchanged, next.rows_written), (false, 1));
}

#[tokio::test]
async fn compaction_and_indexing_keep_the_manifest_valid() {
    let rows: Vec<String> = (0..20).map(|n| format!("{{\"id\": \"{n}\", \"text\": \"number {n}\"}}")).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let corpus = Corpus::of(&[("a.jsonl", &rows)]);
    let mut job = Job { upkeep: MaintenancePolicy { compact: true, ..MaintenancePolicy::OFF }, ..corpus.job() };
    job.commit.rows = 1;
    assert!(corpus.run_as(job).await.upkeep.fragments_merged > 16);
    let index = IndexSpec { kind: IndexKind::IvfFlat, ..IndexSpec::default() };
    let indexed = corpus.run_as(Job { index: index.clone(), ..corpus.job() }).await;
    assert!(indexed.source_unchanged, "the index is made without reading the source");
    let next = corpus.run_as(Job { index, ..corpus.job() }).await;
    assert_eq!((next.source_unchanged, next.version), (true, indexed.version));
}

#[tokio::test]
async fn quarantined_rows_are_retried() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE, r#"{"id": null, "text": "nobody's"}"#])]);
    for _ in 0..2 {
        let run = corpus.run().await;
        assert_eq!((run.source_unchanged, run.rows_quarantined), (false, 1));
    }
}

#[tokio::test]
async fn reread_and_changed_pipelines_read_the_source() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE])]);
    corpus.run().await;
    let reread = corpus.run_as(Job { reread: true, ..corpus.job() }).await;
    assert_eq!((reread.source_unchanged, reread.rows_skipped), (false, 1));
    let mut other = corpus.job();
    other.source.max_bytes = 1 << 10;
    let other = corpus.run_as(other).await;
    assert_eq!((other.source_unchanged, other.rows_skipped), (false, 1));
    assert!(corpus.run().await.source_unchanged);
}

#[tokio::test]
async fn quarantine_record_is_dropped_when_a_bad_edit_is_undone() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE, TWO])]);
    corpus.run().await;
    corpus.write("a.jsonl", &[EMPTY, TWO], 1800);
    let bad = corpus.run().await;
    assert_eq!((bad.rows_quarantined, bad.records_dropped, corpus.quarantined_rows().await), (1, 0, 1));
    corpus.write("a.jsonl", &[ONE, TWO], 900);
    let undone = corpus.run().await;
    assert_eq!(
        (undone.rows_written, undone.rows_skipped, undone.records_dropped),
        (0, 2, 1),
        "the table has it already"
    );
    assert_eq!(corpus.quarantined_rows().await, 0);
    assert!(corpus.run().await.source_unchanged, "no record keeps the file from being finished");
}

#[tokio::test]
async fn quarantine_records_of_removed_rows_and_files_are_dropped() {
    let corpus = Corpus::of(&[("a.jsonl", &[TWO, EMPTY]), ("b.jsonl", &[EMPTY])]);
    assert_eq!(corpus.run().await.rows_quarantined, 2);
    corpus.write("a.jsonl", &[TWO], 1800);
    fs::rename(corpus.path("docs/b.jsonl"), corpus.path("docs/c.jsonl")).unwrap();
    let moved = corpus.run().await;
    assert_eq!((moved.rows_quarantined, moved.records_dropped, corpus.quarantined_rows().await), (1, 2, 1));
    fs::remove_file(corpus.path("docs/c.jsonl")).unwrap();
    assert_eq!((corpus.run().await.records_dropped, corpus.quarantined_rows().await), (1, 0));
}

#[tokio::test]
async fn replay_drops_quarantine_records_of_rows_in_the_table() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE, TWO])]);
    corpus.run().await;
    corpus.write("a.jsonl", &[EMPTY, r#"{"id": "2", "text": ""}"#], 1800);
    assert_eq!(corpus.run().await.rows_quarantined, 2);
    corpus.write("a.jsonl", &[ONE, r#"{"id": "2", "text": ""}"#], 900);
    let mut rows = RowSet::default();
    for held in quarantined_sources(&corpus.job().table, &QuarantineFilter::default()).await.unwrap() {
        rows.insert(&held.source, held.row, held.kind);
    }
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
    let contract = fake_contract(DIM, Chunking::Truncate { max_tokens: 512 });
    let open = corpus.job().open().await.unwrap().only(rows);
    let planned = open.plan(&BackendHandle(backend), contract, Vec::new()).await.unwrap();
    let replayed = planned.run(&mut ()).await.unwrap();
    assert_eq!((replayed.rows_quarantined, replayed.records_dropped, corpus.quarantined_rows().await), (1, 1, 1));
}

#[tokio::test]
async fn version_of_another_writer_invalidates_the_manifest() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE, TWO]), ("b.jsonl", &[EMPTY])]);
    corpus.run().await;
    corpus.age("b.jsonl", 1800);
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
    let contract = fake_contract(DIM, Chunking::Truncate { max_tokens: 512 });
    let open = Job { reread: true, ..corpus.job() }.open().await.unwrap();
    let planned = open.plan(&BackendHandle(backend), contract, Vec::new()).await.unwrap();
    // Another writer commits between the opening of the table and the run's only window, which has only a refused row.
    DeleteBuilder::new(Arc::new(Dataset::open(&corpus.job().table).await.unwrap()), "doc_id = '2'")
        .execute()
        .await
        .unwrap();
    assert_eq!(planned.run(&mut ()).await.unwrap().rows_quarantined, 1);
    assert_eq!(corpus.run().await.rows_written, 1, "the file is read again");
    assert_eq!(corpus.ids().await, ["1", "2"]);
}

#[tokio::test]
async fn drawing_a_map_keeps_the_manifest_valid() {
    let corpus = Corpus::of(&[("a.jsonl", &[ONE, TWO])]);
    corpus.run().await;
    for _ in 0..2 {
        compute_map(&corpus.job().table, 100).await.unwrap();
        assert!(corpus.run().await.source_unchanged);
    }
}
