use arrow::datatypes::UInt32Type;
use lance::dataset::NewColumnTransform;

use crate::tests::*;
use crate::{Table, drop_outdated, quarantine_uri, quarantine_version};

impl Place {
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
async fn a_document_with_one_bad_chunk_stays_out_whole() {
    let place = Place::new();
    let docs = [Doc::new(0, "a", &["1"]), Doc::new(1, "b", &["1", "2", "3"]).failing_at(2), Doc::new(2, "c", &["1"])];
    let commits = run(vec![batch(&docs).slice(0, 3), batch(&docs).slice(3, 2)], place.target("r1", 100)).await.unwrap();
    assert_eq!(commits, [[1, 2, 2, 1, 10]]);
    assert_eq!(place.keys().await, [("a".to_owned(), 0), ("c".to_owned(), 0)]);
    assert_eq!(place.quarantined().await, [record(1, "b", 1, "r1", "3")]);
}

#[tokio::test]
async fn a_document_that_fails_again_counts_attempts_and_one_that_succeeds_leaves() {
    let place = Place::new();
    let bad = |row, id: &str| Doc::new(row, id, &["t"]).failing_at(0);
    run(vec![batch(&[bad(0, "a"), bad(1, "b"), bad(2, "c")])], place.target("r1", 2)).await.unwrap();
    run(vec![batch(&[bad(0, "a"), Doc::new(1, "b", &["t"])])], place.target("r2", 1)).await.unwrap();
    assert_eq!(place.quarantined().await, [record(0, "a", 2, "r2", "t"), record(2, "c", 1, "r1", "t")]);
    assert_eq!(place.keys().await, [("b".to_owned(), 0)]);
}

#[tokio::test]
async fn a_column_that_others_add_to_the_quarantine_is_null_in_new_records() {
    let place = Place::new();
    let bad = |row, id: &str| Doc::new(row, id, &["t"]).failing_at(0);
    run(vec![batch(&[bad(0, "a"), bad(1, "b")])], place.target("r1", 1)).await.unwrap();
    let theirs = NewColumnTransform::SqlExpressions(vec![("note".to_owned(), "upper(doc_id)".to_owned())]);
    let mut dataset = Dataset::open(&quarantine_uri(&place.uri())).await.unwrap();
    dataset.add_columns(theirs, None, None).await.unwrap();

    run(vec![batch(&[bad(0, "a"), bad(2, "c")])], place.target("r2", 1)).await.unwrap();
    assert_eq!(
        place.quarantined().await,
        [record(0, "a", 2, "r2", "t"), record(1, "b", 1, "r1", "t"), record(2, "c", 1, "r2", "t")]
    );
    let batch = Dataset::open(&quarantine_uri(&place.uri())).await.unwrap().scan().try_into_batch().await.unwrap();
    let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
    let mut notes: Vec<_> = notes.iter().flatten().collect();
    notes.sort_unstable();
    assert_eq!(notes, ["B"]);
}

#[tokio::test]
async fn nothing_but_bad_rows_makes_an_empty_table_and_a_quarantine() {
    let place = Place::new();
    let file = Doc { id: None, ..Doc::new(0, "", &["t"]) };
    let commits = run(vec![batch(&[file])], place.target("r1", 1)).await.unwrap();
    assert_eq!(commits, [[1, 0, 0, 1, 0]]);
    let (_, id, stage, error, ..) = place.quarantined().await.remove(0);
    assert_eq!((id, stage.as_str(), error.as_str()), (None, "write", "the row has no id"));
    let table = Table::open(&place.uri()).await.unwrap().unwrap();
    assert_eq!(read(table.keys().unwrap()).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test]
async fn a_second_document_with_the_same_id_does_not_drag_the_first_along() {
    let place = Place::new();
    let docs = [Doc::new(0, "a", &["1"]), Doc::new(1, "a", &["1"]).failing_at(0)];
    run(vec![batch(&docs)], place.target("r1", 100)).await.unwrap();
    assert_eq!(place.keys().await, [("a".to_owned(), 0)]);
    assert_eq!(place.quarantined().await, [record(1, "a", 1, "r1", "1")]);
}

#[tokio::test]
async fn long_texts_are_cut_between_characters() {
    let place = Place::new();
    let text = format!("x{}", "é".repeat(40_000));
    run(vec![batch(&[Doc::new(0, "a", &[&text]).failing_at(0)])], place.target("r1", 1)).await.unwrap();
    let kept = place.quarantined().await.remove(0).6.unwrap();
    assert_eq!(kept.len(), (64 << 10) - 1);
    assert!(text.starts_with(&kept));
}

#[tokio::test]
async fn records_of_rows_that_a_run_found_good_or_gone_are_dropped() {
    let place = Place::new();
    let bad = |row, id: &str| Doc::new(row, id, &["t"]).failing_at(0);
    run(vec![batch(&[bad(0, "a"), bad(1, "b"), bad(2, "c"), bad(3, "d")])], place.target("r1", 10)).await.unwrap();
    let before = quarantine_version(&place.uri()).await.unwrap().unwrap();
    // While `r3` reads the source, `r2` finds one of the rows bad, and `r3` itself another.
    run(vec![batch(&[bad(0, "a")])], place.target("r2", 10)).await.unwrap();
    run(vec![batch(&[bad(1, "b")])], place.target("r3", 10)).await.unwrap();
    let examined = |source: &str, row: u64| source == "corpus.csv" && row != 3;
    assert_eq!(drop_outdated(&place.uri(), "r3", before, examined).await.unwrap(), 1);
    let left = [record(0, "a", 2, "r2", "t"), record(1, "b", 2, "r3", "t"), record(3, "d", 1, "r1", "t")];
    assert_eq!(place.quarantined().await, left);
    assert_eq!(drop_outdated(&place.uri(), "r3", before, examined).await.unwrap(), 0);
    assert_eq!(drop_outdated(&Place::new().uri(), "r3", 1, examined).await.unwrap(), 0);
}

#[tokio::test]
async fn a_window_of_refused_rows_alone_reports_no_version() {
    let place = Place::new();
    run(vec![batch(&[Doc::new(0, "a", &["t"])])], place.target("r1", 10)).await.unwrap();
    let bad = batch(&[Doc::new(1, "b", &["t"]).failing_at(0)]);
    let commits = collect(plan(vec![bad], place.target("r2", 10)), SessionContext::new().task_ctx()).await.unwrap();
    assert_eq!(commits.len(), 1);
    assert!(commits[0].column_by_name("version").unwrap().is_null(0), "another writer may have made the latest one");
    assert_eq!(place.dataset().await.version_id(), 1);
}
