use polylance_schema::{columns::DOC_ID, key_schema};

use crate::tests::*;
use crate::{CommitReport, Table, properties};

fn owned(keys: &[(&str, u32)]) -> Vec<(String, u32)> {
    keys.iter().map(|(id, chunk)| ((*id).to_owned(), *chunk)).collect()
}

#[tokio::test]
async fn rows_arrive_in_order_with_the_contract_in_the_metadata() {
    let fixture = TestTable::new();
    let docs = [Doc::new(0, "a", &["one", "two"]), Doc { lang: None, ..Doc::new(1, "b", &["three"]) }];
    let commits = run(vec![batch(&docs)], fixture.target("r1", 100)).await.unwrap();
    assert_eq!(commits, [CommitReport { version: Some(1), documents: 2, chunks: 3, quarantined: 0, tokens: 15 }]);
    let row = |id: &str, chunk, text: &str| (id.to_owned(), chunk, text.to_owned(), "r1".to_owned());
    assert_eq!(fixture.rows().await, [row("a", 0, "one"), row("a", 1, "two"), row("b", 0, "three")]);

    let table = Table::open(&fixture.uri()).await.unwrap().unwrap();
    assert_eq!(table.contract().unwrap(), Some(contract()));
    assert_eq!(table.version(), 1);
    table.check(&fixture.target("r2", 1)).unwrap();
    let batch = fixture.dataset().await.scan().try_into_batch().await.unwrap();
    let lang = batch.column_by_name("lang").unwrap();
    assert_eq!((lang.is_null(0), lang.is_null(2)), (false, true));
    let found: Vec<_> = batch.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    let expected = fixture.target("r1", 1).schema();
    let expected: Vec<_> = expected.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn window_closes_only_between_documents() {
    let fixture = TestTable::new();
    // The second document's chunks come in two batches; each window would be full inside it.
    let head = batch(&[Doc::new(0, "a", &["1"]), Doc::new(1, "b", &["1", "2"])]);
    let tail = batch(&[Doc::new(1, "b", &["1", "2", "3", "4"]), Doc::new(2, "c", &["1"])]).slice(2, 3);
    let commits = run(vec![head, tail], fixture.target("r1", 2)).await.unwrap();
    assert_eq!(
        commits,
        [
            CommitReport { version: Some(1), documents: 2, chunks: 5, quarantined: 0, tokens: 25 },
            CommitReport { version: Some(2), documents: 1, chunks: 1, quarantined: 0, tokens: 5 }
        ]
    );
    let expected = [("a", 0), ("b", 0), ("b", 1), ("b", 2), ("b", 3), ("c", 0)];
    assert_eq!(fixture.keys().await, owned(&expected));
}

#[tokio::test]
async fn every_window_is_a_version_with_the_properties_of_its_run() {
    let fixture = TestTable::new();
    let docs: Vec<_> = (0..5).map(|i| Doc::new(i, &format!("d{i}"), &["text"])).collect();
    let commits = run(vec![batch(&docs)], fixture.target("r1", 2)).await.unwrap();
    assert_eq!(
        commits.iter().map(|c| (c.version, c.documents)).collect::<Vec<_>>(),
        [(Some(1), 2), (Some(2), 2), (Some(3), 1)]
    );
    let dataset = fixture.dataset().await;
    assert_eq!(dataset.versions().await.unwrap().len(), 3);
    let transaction = dataset.read_transaction().await.unwrap().unwrap();
    let recorded = transaction.transaction_properties.unwrap();
    assert_eq!(recorded.get(properties::RUN_ID).map(String::as_str), Some("r1"));
    assert_eq!(recorded.get(properties::SOURCE_FIRST).map(String::as_str), Some("corpus.csv#4"));
    assert_eq!(recorded.get(properties::DOCUMENTS).map(String::as_str), Some("1"));
    assert_eq!(recorded.get("pipeline").map(String::as_str), Some("test.toml"));
}

#[tokio::test]
async fn empty_run_creates_an_empty_table_only_once() {
    let fixture = TestTable::new();
    assert_eq!(
        run(vec![], fixture.target("r1", 2)).await.unwrap(),
        [CommitReport { version: Some(1), documents: 0, chunks: 0, quarantined: 0, tokens: 0 }]
    );
    assert_eq!(run(vec![batch(&[])], fixture.target("r2", 2)).await.unwrap(), Vec::<CommitReport>::new());
    assert_eq!(fixture.dataset().await.versions().await.unwrap().len(), 1);
    let commits = run(vec![batch(&[Doc::new(0, "a", &["one"])])], fixture.target("r3", 2)).await.unwrap();
    assert_eq!(commits, [CommitReport { version: Some(2), documents: 1, chunks: 1, quarantined: 0, tokens: 5 }]);
    assert_eq!(fixture.keys().await, owned(&[("a", 0)]));
}

#[tokio::test]
async fn text_can_be_left_out() {
    let fixture = TestTable::new();
    let target = TableTarget { text: TextColumn::LeftOut, ..fixture.target("r1", 2) };
    run(vec![batch(&[Doc::new(0, "a", &["one"])])], target).await.unwrap();
    let dataset = fixture.dataset().await;
    assert!(dataset.schema().field("text").is_none());
    assert_eq!(dataset.count_rows(None).await.unwrap(), 1);
}

#[tokio::test]
async fn keys_are_one_row_per_document_of_two_columns() {
    let fixture = TestTable::new();
    let docs = [Doc::new(0, "a", &["1", "2"]), Doc::new(1, "b", &["1", "2", "3"])];
    run(vec![batch(&docs)], fixture.target("r1", 1)).await.unwrap();
    let table = Table::open(&fixture.uri()).await.unwrap().unwrap();
    let keys = read(table.keys().unwrap()).await;
    let ids: Vec<_> = keys.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(keys.iter().all(|batch| batch.schema() == key_schema()));
    assert_eq!(keys[0].schema().field(0).name(), DOC_ID);
}

#[tokio::test]
async fn document_larger_than_the_memory_limit_spills_to_a_file() {
    let fixture = TestTable::new();
    let text = "x".repeat(4 << 10);
    let chunks: Vec<&str> = (0..10).map(|_| text.as_str()).collect();
    let whole = Doc::new(0, "long", &chunks.repeat(8));
    let all = batch(&[whole.clone(), Doc::new(1, "short", &["s"])]);
    let parts: Vec<_> = (0..8).map(|i| all.slice(i * 10, 10)).chain([all.slice(80, 1)]).collect();
    let commits = run(parts, fixture.target("r1", 1)).await.unwrap();
    assert_eq!(
        commits,
        [
            CommitReport { version: Some(1), documents: 1, chunks: 80, quarantined: 0, tokens: 400 },
            CommitReport { version: Some(2), documents: 1, chunks: 1, quarantined: 0, tokens: 5 }
        ]
    );
    let chunks: Vec<_> = fixture.keys().await.into_iter().filter(|(id, _)| id == "long").map(|(_, c)| c).collect();
    assert_eq!(chunks, (0..80).collect::<Vec<u32>>());

    let bad = batch(&[whole.failing_at(79)]);
    let parts: Vec<_> = (0..8).map(|i| bad.slice(i * 10, 10)).collect();
    let commits = run(parts, fixture.target("r2", 1)).await.unwrap();
    assert_eq!(
        commits,
        [CommitReport { version: None, documents: 0, chunks: 0, quarantined: 1, tokens: 0 }],
        "no version of the table"
    );
}
