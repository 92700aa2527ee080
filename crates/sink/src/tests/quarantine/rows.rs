use polylance_schema::{RecordKind, Stage, quarantine_schema};

use crate::tests::*;
use crate::{
    OnConflict, QuarantineFilter, QuarantinedRow, compact, count_quarantined, declare_columns, drop_quarantined,
    missing_rows, quarantined_rows, quarantined_sources, tests::columns::topic,
};

fn bad(row: u64, id: &str) -> Doc {
    Doc::new(row, id, &["bad"]).failing_at(0)
}

/// Three rows that failed while encoding, and one without an id.
async fn fixture() -> TestTable {
    let fixture = TestTable::new();
    let nameless = Doc { id: None, ..Doc::new(7, "", &["t"]) };
    let docs = [bad(3, "a"), Doc::new(4, "good", &["t"]), bad(5, "it's"), bad(6, "c"), nameless];
    run(vec![batch(&docs)], fixture.target("r1", 100)).await.unwrap();
    fixture
}

fn select(stage: Option<Stage>, id: Option<&str>) -> QuarantineFilter {
    QuarantineFilter { stage, doc_id: id.map(str::to_owned) }
}

impl TestTable {
    async fn count_listed(&self, filter: &QuarantineFilter, limit: Option<usize>) -> usize {
        let batches: Vec<_> = quarantined_rows(&self.uri(), filter, limit).await.unwrap().try_collect().await.unwrap();
        assert!(batches.iter().all(|batch: &RecordBatch| batch.schema().fields() == quarantine_schema().fields()));
        batches.iter().map(RecordBatch::num_rows).sum()
    }
}

#[tokio::test]
async fn records_are_listed_by_stage_and_document_up_to_a_limit() {
    let fixture = fixture().await;
    let cases = [
        (select(None, None), 4),
        (select(Some(Stage::Encode), None), 3),
        (select(Some(Stage::Write), None), 1),
        (select(Some(Stage::Scan), None), 0),
    ];
    for (rows, expected) in cases {
        assert_eq!(fixture.count_listed(&rows, None).await, expected, "{rows:?}");
        assert_eq!(count_quarantined(&fixture.uri(), &rows).await.unwrap(), expected as u64);
    }
    assert_eq!(fixture.count_listed(&select(None, Some("it's")), None).await, 1);
    assert_eq!(fixture.count_listed(&select(None, None), Some(2)).await, 2);
    let nowhere = TestTable::new();
    assert_eq!(
        (
            nowhere.count_listed(&select(None, None), None).await,
            count_quarantined(&nowhere.uri(), &select(None, None)).await.unwrap()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn only_the_selected_records_are_dropped() {
    let fixture = fixture().await;
    assert_eq!(drop_quarantined(&fixture.uri(), &select(None, Some("it's"))).await.unwrap(), 1);
    assert_eq!(drop_quarantined(&fixture.uri(), &select(None, Some("it's"))).await.unwrap(), 0);
    assert_eq!(drop_quarantined(&fixture.uri(), &select(Some(Stage::Encode), None)).await.unwrap(), 2);
    assert_eq!(fixture.count_listed(&select(Some(Stage::Write), None), None).await, 1);
    // A row that fails again gets a new record.
    run(vec![batch(&[bad(3, "a")])], fixture.target("r2", 1)).await.unwrap();
    assert_eq!(fixture.count_listed(&select(None, Some("a")), None).await, 1);
    assert_eq!(drop_quarantined(&fixture.uri(), &QuarantineFilter::default()).await.unwrap(), 2);
    assert_eq!(drop_quarantined(&TestTable::new().uri(), &QuarantineFilter::default()).await.unwrap(), 0);
}

#[tokio::test]
async fn quarantined_rows_have_their_position_in_the_source() {
    let fixture = fixture().await;
    let rows = quarantined_sources(&fixture.uri(), &select(Some(Stage::Encode), None)).await.unwrap();
    let row = |row| QuarantinedRow { source: "corpus.csv".into(), row, kind: RecordKind::Row, run_id: "r1".into() };
    assert_eq!(rows, [row(3), row(5), row(6)]);
}

#[tokio::test]
async fn annotation_records_are_dropped_when_compaction_moves_their_rows() {
    let fixture = TestTable::new();
    for (row, text) in [(0, "good"), (1, "bad")] {
        run(vec![batch(&[Doc::new(row, text, &[text])])], fixture.target("r1", 1)).await.unwrap();
    }
    run(vec![batch(&[bad(9, "z")])], fixture.target("r1", 1)).await.unwrap();
    let column = topic("1");
    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    fixture.fill(&column, 100).await;
    assert_eq!(fixture.count_listed(&select(Some(Stage::Annotate), None), None).await, 1);
    assert_eq!(
        quarantined_sources(&fixture.uri(), &QuarantineFilter::default()).await.unwrap().len(),
        1,
        "rows of the source only"
    );

    compact(&fixture.uri(), 0, OnConflict::Retry).await.unwrap();
    assert_eq!(fixture.count_listed(&select(Some(Stage::Annotate), None), None).await, 0);
    assert_eq!(fixture.count_listed(&select(None, None), None).await, 1, "rows of the source stay");
    // The row is tried again, and gets a record with its new address.
    fixture.fill(&column, 100).await;
    assert_eq!(fixture.count_listed(&select(Some(Stage::Annotate), None), None).await, 1);
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 1);
}
