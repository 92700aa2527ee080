use polylance_schema::{RecordKind, Stage, quarantine_schema};

use crate::tests::*;
use crate::{
    Contention, QuarantineFilter, QuarantinedRow, compact, count_quarantined, declare_columns, drop_quarantined,
    missing_rows, quarantined_rows, quarantined_sources, tests::columns::topic,
};

fn bad(row: u64, id: &str) -> Doc {
    Doc::new(row, id, &["bad"]).failing_at(0)
}

/// Three rows that failed while encoding, and one without an id.
async fn place() -> Place {
    let place = Place::new();
    let nameless = Doc { id: None, ..Doc::new(7, "", &["t"]) };
    let docs = [bad(3, "a"), Doc::new(4, "good", &["t"]), bad(5, "it's"), bad(6, "c"), nameless];
    run(vec![batch(&docs)], place.target("r1", 100)).await.unwrap();
    place
}

fn of(stage: Option<Stage>, id: Option<&str>) -> QuarantineFilter {
    QuarantineFilter { stage, doc_id: id.map(str::to_owned) }
}

impl Place {
    async fn held(&self, rows: &QuarantineFilter, limit: Option<usize>) -> usize {
        let batches: Vec<_> = quarantined_rows(&self.uri(), rows, limit).await.unwrap().try_collect().await.unwrap();
        assert!(batches.iter().all(|batch: &RecordBatch| batch.schema().fields() == quarantine_schema().fields()));
        batches.iter().map(RecordBatch::num_rows).sum()
    }
}

#[tokio::test]
async fn rows_are_listed_by_stage_and_document_up_to_a_limit() {
    let place = place().await;
    let cases = [
        (of(None, None), 4),
        (of(Some(Stage::Encode), None), 3),
        (of(Some(Stage::Write), None), 1),
        (of(Some(Stage::Scan), None), 0),
    ];
    for (rows, expected) in cases {
        assert_eq!(place.held(&rows, None).await, expected, "{rows:?}");
        assert_eq!(count_quarantined(&place.uri(), &rows).await.unwrap(), expected as u64);
    }
    assert_eq!(place.held(&of(None, Some("it's")), None).await, 1);
    assert_eq!(place.held(&of(None, None), Some(2)).await, 2);
    let nowhere = Place::new();
    assert_eq!(
        (nowhere.held(&of(None, None), None).await, count_quarantined(&nowhere.uri(), &of(None, None)).await.unwrap()),
        (0, 0)
    );
}

#[tokio::test]
async fn dropped_rows_are_gone_and_the_others_stay() {
    let place = place().await;
    assert_eq!(drop_quarantined(&place.uri(), &of(None, Some("it's"))).await.unwrap(), 1);
    assert_eq!(drop_quarantined(&place.uri(), &of(None, Some("it's"))).await.unwrap(), 0);
    assert_eq!(drop_quarantined(&place.uri(), &of(Some(Stage::Encode), None)).await.unwrap(), 2);
    assert_eq!(place.held(&of(Some(Stage::Write), None), None).await, 1);
    // A row that fails again begins anew.
    run(vec![batch(&[bad(3, "a")])], place.target("r2", 1)).await.unwrap();
    assert_eq!(place.held(&of(None, Some("a")), None).await, 1);
    assert_eq!(drop_quarantined(&place.uri(), &QuarantineFilter::default()).await.unwrap(), 2);
    assert_eq!(drop_quarantined(&Place::new().uri(), &QuarantineFilter::default()).await.unwrap(), 0);
}

#[tokio::test]
async fn the_places_of_rows_are_those_of_the_source() {
    let place = place().await;
    let held = quarantined_sources(&place.uri(), &of(Some(Stage::Encode), None)).await.unwrap();
    let row = |row| QuarantinedRow { source: "corpus.csv".into(), row, kind: RecordKind::Row, run_id: "r1".into() };
    assert_eq!(held, [row(3), row(5), row(6)]);
}

#[tokio::test]
async fn records_of_heads_go_when_a_merge_moves_their_rows() {
    let place = Place::new();
    for (row, text) in [(0, "good"), (1, "bad")] {
        run(vec![batch(&[Doc::new(row, text, &[text])])], place.target("r1", 1)).await.unwrap();
    }
    run(vec![batch(&[bad(9, "z")])], place.target("r1", 1)).await.unwrap();
    let column = topic("1");
    declare_columns(&place.uri(), std::slice::from_ref(&column)).await.unwrap();
    place.fill(&column, 100).await;
    assert_eq!(place.held(&of(Some(Stage::Annotate), None), None).await, 1);
    assert_eq!(
        quarantined_sources(&place.uri(), &QuarantineFilter::default()).await.unwrap().len(),
        1,
        "rows of the source only"
    );

    compact(&place.uri(), 0, Contention::Retry).await.unwrap();
    assert_eq!(place.held(&of(Some(Stage::Annotate), None), None).await, 0);
    assert_eq!(place.held(&of(None, None), None).await, 1, "rows of the source stay");
    // The row is tried again, and held under its new address.
    place.fill(&column, 100).await;
    assert_eq!(place.held(&of(Some(Stage::Annotate), None), None).await, 1);
    assert_eq!(missing_rows(&place.uri(), "topic").await.unwrap(), 1);
}
