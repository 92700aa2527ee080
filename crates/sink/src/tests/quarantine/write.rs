use arrow::datatypes::UInt32Type;
use lance::dataset::NewColumnTransform;

use crate::tests::*;
use crate::{CommitReport, Table, drop_outdated, quarantine_uri, quarantine_version};

impl TestTable {
    /// `(row, doc_id, stage, error, attempts, run_id, text)` of the quarantine, by row.
    async fn quarantined(&self) -> Vec<(u64, Option<String>, String, String, u32, String, Option<String>)> {
        let dataset = Dataset::open(&quarantine_uri(&self.uri())).await.unwrap();
        let batch = dataset.scan().try_into_batch().await.unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let text =
            |name: &str, i| column(name).is_valid(i).then(|| column(name).as_string::<i32>().value(i).to_owned());
        let mut rows: Vec<_> = (0..batch.num_rows())
            .map(|i| {
                let row = column("row").as_primitive::<UInt64Type>().value(i);
                let attempts = column("attempts").as_primitive::<UInt32Type>().value(i);
                let (stage, error) = (text("stage", i).unwrap(), text("error", i).unwrap());
                (row, text("doc_id", i), stage, error, attempts, text("run_id", i).unwrap(), text("text", i))
            })
            .collect();
        rows.sort();
        rows
    }
}

fn record(
    row: u64,
    id: &str,
    attempts: u32,
    run_id: &str,
    text: &str,
) -> (u64, Option<String>, String, String, u32, String, Option<String>) {
    (row, Some(id.into()), "encode".into(), "refused".into(), attempts, run_id.into(), Some(text.into()))
}

#[tokio::test]
async fn document_with_one_failed_chunk_is_not_written_at_all() {
    let fixture = TestTable::new();
    let docs = [Doc::new(0, "a", &["1"]), Doc::new(1, "b", &["1", "2", "3"]).failing_at(2), Doc::new(2, "c", &["1"])];
    let commits =
        run(vec![batch(&docs).slice(0, 3), batch(&docs).slice(3, 2)], fixture.target("r1", 100)).await.unwrap();
    assert_eq!(commits, [CommitReport { version: Some(1), documents: 2, chunks: 2, quarantined: 1, tokens: 10 }]);
    assert_eq!(fixture.keys().await, [("a".to_owned(), 0), ("c".to_owned(), 0)]);
    assert_eq!(fixture.quarantined().await, [record(1, "b", 1, "r1", "3")]);
}

#[tokio::test]
async fn failing_again_counts_attempts_and_success_drops_the_record() {
    let fixture = TestTable::new();
    let bad = |row, id: &str| Doc::new(row, id, &["t"]).failing_at(0);
    run(vec![batch(&[bad(0, "a"), bad(1, "b"), bad(2, "c")])], fixture.target("r1", 2)).await.unwrap();
    run(vec![batch(&[bad(0, "a"), Doc::new(1, "b", &["t"])])], fixture.target("r2", 1)).await.unwrap();
    assert_eq!(fixture.quarantined().await, [record(0, "a", 2, "r2", "t"), record(2, "c", 1, "r1", "t")]);
    assert_eq!(fixture.keys().await, [("b".to_owned(), 0)]);
}

#[tokio::test]
async fn foreign_column_of_the_quarantine_is_null_in_new_records() {
    let fixture = TestTable::new();
    let bad = |row, id: &str| Doc::new(row, id, &["t"]).failing_at(0);
    run(vec![batch(&[bad(0, "a"), bad(1, "b")])], fixture.target("r1", 1)).await.unwrap();
    let theirs = NewColumnTransform::SqlExpressions(vec![("note".to_owned(), "upper(doc_id)".to_owned())]);
    let mut dataset = Dataset::open(&quarantine_uri(&fixture.uri())).await.unwrap();
    dataset.add_columns(theirs, None, None).await.unwrap();

    run(vec![batch(&[bad(0, "a"), bad(2, "c")])], fixture.target("r2", 1)).await.unwrap();
    assert_eq!(
        fixture.quarantined().await,
        [record(0, "a", 2, "r2", "t"), record(1, "b", 1, "r1", "t"), record(2, "c", 1, "r2", "t")]
    );
    let batch = Dataset::open(&quarantine_uri(&fixture.uri())).await.unwrap().scan().try_into_batch().await.unwrap();
    let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
    let mut notes: Vec<_> = notes.iter().flatten().collect();
    notes.sort_unstable();
    assert_eq!(notes, ["B"]);
}

#[tokio::test]
async fn run_of_failed_rows_makes_an_empty_table_and_a_quarantine() {
    let fixture = TestTable::new();
    let file = Doc { id: None, ..Doc::new(0, "", &["t"]) };
    let commits = run(vec![batch(&[file])], fixture.target("r1", 1)).await.unwrap();
    assert_eq!(commits, [CommitReport { version: Some(1), documents: 0, chunks: 0, quarantined: 1, tokens: 0 }]);
    let (_, id, stage, error, ..) = fixture.quarantined().await.remove(0);
    assert_eq!((id, stage.as_str(), error.as_str()), (None, "write", "the row has no id"));
    let table = Table::open(&fixture.uri()).await.unwrap().unwrap();
    assert_eq!(read(table.keys().unwrap()).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test]
async fn failed_duplicate_id_does_not_quarantine_the_first_document() {
    let fixture = TestTable::new();
    let docs = [Doc::new(0, "a", &["1"]), Doc::new(1, "a", &["1"]).failing_at(0)];
    run(vec![batch(&docs)], fixture.target("r1", 100)).await.unwrap();
    assert_eq!(fixture.keys().await, [("a".to_owned(), 0)]);
    assert_eq!(fixture.quarantined().await, [record(1, "a", 1, "r1", "1")]);
}

#[tokio::test]
async fn long_texts_are_cut_between_characters() {
    let fixture = TestTable::new();
    let text = format!("x{}", "é".repeat(40_000));
    run(vec![batch(&[Doc::new(0, "a", &[&text]).failing_at(0)])], fixture.target("r1", 1)).await.unwrap();
    let kept = fixture.quarantined().await.remove(0).6.unwrap();
    assert_eq!(kept.len(), (64 << 10) - 1);
    assert!(text.starts_with(&kept));
}

#[tokio::test]
async fn records_of_good_and_removed_rows_are_dropped() {
    let fixture = TestTable::new();
    let bad = |row, id: &str| Doc::new(row, id, &["t"]).failing_at(0);
    run(vec![batch(&[bad(0, "a"), bad(1, "b"), bad(2, "c"), bad(3, "d")])], fixture.target("r1", 10)).await.unwrap();
    let before = quarantine_version(&fixture.uri()).await.unwrap().unwrap();
    // While `r3` reads the source, `r2` finds one of the rows bad, and `r3` itself another.
    run(vec![batch(&[bad(0, "a")])], fixture.target("r2", 10)).await.unwrap();
    run(vec![batch(&[bad(1, "b")])], fixture.target("r3", 10)).await.unwrap();
    let examined = |source: &str, row: u64| source == "corpus.csv" && row != 3;
    assert_eq!(drop_outdated(&fixture.uri(), "r3", before, examined).await.unwrap(), 1);
    let left = [record(0, "a", 2, "r2", "t"), record(1, "b", 2, "r3", "t"), record(3, "d", 1, "r1", "t")];
    assert_eq!(fixture.quarantined().await, left);
    assert_eq!(drop_outdated(&fixture.uri(), "r3", before, examined).await.unwrap(), 0);
    assert_eq!(drop_outdated(&TestTable::new().uri(), "r3", 1, examined).await.unwrap(), 0);
}

#[tokio::test]
async fn window_of_failed_rows_reports_no_version() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["t"])])], fixture.target("r1", 10)).await.unwrap();
    let bad = batch(&[Doc::new(1, "b", &["t"]).failing_at(0)]);
    let commits = collect(plan(vec![bad], fixture.target("r2", 10)), SessionContext::new().task_ctx()).await.unwrap();
    assert_eq!(commits.len(), 1);
    assert!(commits[0].column_by_name("version").unwrap().is_null(0), "another writer may have made the latest one");
    assert_eq!(fixture.dataset().await.version_id(), 1);
}
