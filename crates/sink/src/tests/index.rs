use super::*;
use crate::{IndexAction, IndexSpec, SinkError, retrain_index, update_index};
use polylance_schema::{IndexKind, Metric};

fn docs(range: std::ops::Range<u64>) -> RecordBatch {
    batch(&range.map(|i| Doc::new(i, &format!("d{i}"), &["t"])).collect::<Vec<_>>())
}

#[tokio::test]
async fn index_is_built_then_extended_then_unchanged() {
    let fixture = TestTable::new();
    run(vec![docs(0..600)], fixture.target("r1", 0)).await.unwrap();
    let spec = IndexSpec { kind: IndexKind::IvfPq, ..IndexSpec::default() };
    let built = update_index(&fixture.uri(), &spec).await.unwrap();
    assert_eq!((built.action, built.kind.as_deref()), (IndexAction::Built, Some("IVF_PQ")));
    assert_eq!((built.indexed_rows, built.unindexed_rows), (600, 0));
    assert_eq!(update_index(&fixture.uri(), &spec).await.unwrap().action, IndexAction::Unchanged);

    // One document changes, which leaves its new row uncovered.
    run(vec![batch(&[Doc::new(5, "d5", &["new"]), Doc::new(900, "d900", &["t"])])], fixture.target("r2", 0))
        .await
        .unwrap();
    let extended = update_index(&fixture.uri(), &spec).await.unwrap();
    assert_eq!((extended.action, extended.unindexed_rows), (IndexAction::Extended, 0));
    assert_eq!(fixture.dataset().await.count_rows(None).await.unwrap(), 601);
}

#[tokio::test]
async fn every_kind_is_built_and_another_kind_or_metric_rebuilds() {
    let fixture = TestTable::new();
    run(vec![docs(0..300)], fixture.target("r1", 0)).await.unwrap();
    for (kind, name) in
        [(IndexKind::IvfFlat, "IVF_FLAT"), (IndexKind::IvfSq, "IVF_SQ"), (IndexKind::IvfHnswSq, "IVF_HNSW_SQ")]
    {
        let spec = IndexSpec { kind, ..IndexSpec::default() };
        let outcome = update_index(&fixture.uri(), &spec).await.unwrap();
        assert_eq!((outcome.action, outcome.kind.as_deref()), (IndexAction::Built, Some(name)));
    }
    let spec = IndexSpec { kind: IndexKind::IvfHnswSq, metric: Metric::L2, ..IndexSpec::default() };
    assert_eq!(update_index(&fixture.uri(), &spec).await.unwrap().action, IndexAction::Built);
    let none = IndexSpec { kind: IndexKind::None, ..IndexSpec::default() };
    let dropped = update_index(&fixture.uri(), &none).await.unwrap();
    assert_eq!((dropped.action, dropped.kind, dropped.unindexed_rows), (IndexAction::Dropped, None, 300));
}

#[tokio::test]
async fn small_table_gets_no_index() {
    let fixture = TestTable::new();
    run(vec![docs(0..3)], fixture.target("r1", 0)).await.unwrap();
    let auto = update_index(&fixture.uri(), &IndexSpec::default()).await.unwrap();
    assert_eq!((auto.action, auto.unindexed_rows, auto.version), (IndexAction::None, 3, 1));
    let spec = IndexSpec { kind: IndexKind::IvfPq, ..IndexSpec::default() };
    assert_eq!(update_index(&fixture.uri(), &spec).await.unwrap().action, IndexAction::Postponed);
    let missing = update_index(&format!("{}.no", fixture.uri()), &spec).await.unwrap_err();
    assert!(matches!(missing, SinkError::Index { .. }), "{missing}");
}

#[tokio::test]
async fn retraining_keeps_the_kind_and_metric() {
    let fixture = TestTable::new();
    run(vec![docs(0..300)], fixture.target("r1", 0)).await.unwrap();
    assert_eq!(retrain_index(&fixture.uri()).await.unwrap().action, IndexAction::None);
    let spec = IndexSpec { kind: IndexKind::IvfSq, metric: Metric::L2, ..IndexSpec::default() };
    update_index(&fixture.uri(), &spec).await.unwrap();
    run(vec![docs(300..600)], fixture.target("r2", 0)).await.unwrap();
    let rebuilt = retrain_index(&fixture.uri()).await.unwrap();
    assert_eq!((rebuilt.action, rebuilt.kind.as_deref()), (IndexAction::Built, Some("IVF_SQ")));
    assert_eq!((rebuilt.indexed_rows, rebuilt.unindexed_rows, rebuilt.retrain), (600, 0, None));
    assert_eq!(update_index(&fixture.uri(), &spec).await.unwrap().action, IndexAction::Unchanged, "by the same metric");
}

#[tokio::test]
async fn index_of_another_column_with_the_same_name_is_kept() {
    use lance::index::DatasetIndexExt;

    let fixture = TestTable::new();
    run(vec![docs(0..300)], fixture.target("r1", 0)).await.unwrap();
    let params = lance_index::scalar::ScalarIndexParams::default();
    let (name, kind) = (Some("embedding_idx".to_owned()), lance_index::IndexType::BTree);
    fixture.dataset().await.create_index(&["doc_id"], kind, name, &params, false).await.unwrap();

    let spec = IndexSpec { kind: IndexKind::IvfFlat, ..IndexSpec::default() };
    assert_eq!(update_index(&fixture.uri(), &spec).await.unwrap().action, IndexAction::Built);
    assert_eq!(update_index(&fixture.uri(), &spec).await.unwrap().action, IndexAction::Unchanged);
    let none = IndexSpec { kind: IndexKind::None, ..IndexSpec::default() };
    assert_eq!(update_index(&fixture.uri(), &none).await.unwrap().action, IndexAction::Dropped);
    let names: Vec<_> = fixture.dataset().await.load_indices().await.unwrap().iter().map(|i| i.name.clone()).collect();
    assert_eq!(names, ["embedding_idx"]);
}
