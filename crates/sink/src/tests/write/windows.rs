use polylance_schema::{columns::DOC_ID, key_schema};

use crate::tests::*;
use crate::{Table, properties};

fn owned(keys: &[(&str, u32)]) -> Vec<(String, u32)> {
    keys.iter().map(|(id, chunk)| ((*id).to_owned(), *chunk)).collect()
}

#[tokio::test]
async fn rows_arrive_in_order_with_the_contract_in_the_metadata() {
    let place = Place::new();
    let docs = [Doc::new(0, "a", &["one", "two"]), Doc { lang: None, ..Doc::new(1, "b", &["three"]) }];
    let commits = run(vec![batch(&docs)], place.target("r1", 100)).await.unwrap();
    assert_eq!(commits, [[1, 2, 3, 0, 15]]);
    let row = |id: &str, chunk, text: &str| (id.to_owned(), chunk, text.to_owned(), "r1".to_owned());
    assert_eq!(place.rows().await, [row("a", 0, "one"), row("a", 1, "two"), row("b", 0, "three")]);

    let table = Table::open(&place.uri()).await.unwrap().unwrap();
    assert_eq!(table.contract().unwrap(), Some(contract()));
    assert_eq!(table.version(), 1);
    table.check(&place.target("r2", 1)).unwrap();
    let batch = place.dataset().await.scan().try_into_batch().await.unwrap();
    let lang = batch.column_by_name("lang").unwrap();
    assert_eq!((lang.is_null(0), lang.is_null(2)), (false, true));
    let found: Vec<_> = batch.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    let expected = place.target("r1", 1).schema();
    let expected: Vec<_> = expected.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_window_closes_only_between_documents() {
    let place = Place::new();
    // The second document's chunks come in two batches; each window would be full inside it.
    let head = batch(&[Doc::new(0, "a", &["1"]), Doc::new(1, "b", &["1", "2"])]);
    let tail = batch(&[Doc::new(1, "b", &["1", "2", "3", "4"]), Doc::new(2, "c", &["1"])]).slice(2, 3);
    let commits = run(vec![head, tail], place.target("r1", 2)).await.unwrap();
    assert_eq!(commits, [[1, 2, 5, 0, 25], [2, 1, 1, 0, 5]]);
    let expected = [("a", 0), ("b", 0), ("b", 1), ("b", 2), ("b", 3), ("c", 0)];
    assert_eq!(place.keys().await, owned(&expected));
}

#[tokio::test]
async fn every_window_is_a_version_that_says_who_made_it() {
    let place = Place::new();
    let docs: Vec<_> = (0..5).map(|i| Doc::new(i, &format!("d{i}"), &["text"])).collect();
    let commits = run(vec![batch(&docs)], place.target("r1", 2)).await.unwrap();
    assert_eq!(commits.iter().map(|c| (c[0], c[1])).collect::<Vec<_>>(), [(1, 2), (2, 2), (3, 1)]);
    let dataset = place.dataset().await;
    assert_eq!(dataset.versions().await.unwrap().len(), 3);
    let transaction = dataset.read_transaction().await.unwrap().unwrap();
    let said = transaction.transaction_properties.unwrap();
    assert_eq!(said.get(properties::RUN_ID).map(String::as_str), Some("r1"));
    assert_eq!(said.get(properties::SOURCE_FIRST).map(String::as_str), Some("corpus.csv#4"));
    assert_eq!(said.get(properties::DOCUMENTS).map(String::as_str), Some("1"));
    assert_eq!(said.get("pipeline").map(String::as_str), Some("test.toml"));
}

#[tokio::test]
async fn an_empty_run_makes_an_empty_table_once_and_then_nothing() {
    let place = Place::new();
    assert_eq!(run(vec![], place.target("r1", 2)).await.unwrap(), [[1, 0, 0, 0, 0]]);
    assert_eq!(run(vec![batch(&[])], place.target("r2", 2)).await.unwrap(), Vec::<[u64; 5]>::new());
    assert_eq!(place.dataset().await.versions().await.unwrap().len(), 1);
    let commits = run(vec![batch(&[Doc::new(0, "a", &["one"])])], place.target("r3", 2)).await.unwrap();
    assert_eq!(commits, [[2, 1, 1, 0, 5]]);
    assert_eq!(place.keys().await, owned(&[("a", 0)]));
}

#[tokio::test]
async fn text_can_be_left_out() {
    let place = Place::new();
    let target = TableTarget { text: TextColumn::LeftOut, ..place.target("r1", 2) };
    run(vec![batch(&[Doc::new(0, "a", &["one"])])], target).await.unwrap();
    let dataset = place.dataset().await;
    assert!(dataset.schema().field("text").is_none());
    assert_eq!(dataset.count_rows(None).await.unwrap(), 1);
}

#[tokio::test]
async fn keys_are_one_row_a_document_and_read_two_columns() {
    let place = Place::new();
    let docs = [Doc::new(0, "a", &["1", "2"]), Doc::new(1, "b", &["1", "2", "3"])];
    run(vec![batch(&docs)], place.target("r1", 1)).await.unwrap();
    let table = Table::open(&place.uri()).await.unwrap().unwrap();
    let keys = read(table.keys().unwrap()).await;
    let ids: Vec<_> = keys.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(keys.iter().all(|batch| batch.schema() == key_schema()));
    assert_eq!(keys[0].schema().field(0).name(), DOC_ID);
}

#[tokio::test]
async fn a_document_longer_than_memory_allows_goes_through_a_file() {
    let place = Place::new();
    let text = "x".repeat(4 << 10);
    let chunks: Vec<&str> = (0..10).map(|_| text.as_str()).collect();
    let whole = Doc::new(0, "long", &chunks.repeat(8));
    let all = batch(&[whole.clone(), Doc::new(1, "short", &["s"])]);
    let parts: Vec<_> = (0..8).map(|i| all.slice(i * 10, 10)).chain([all.slice(80, 1)]).collect();
    let commits = run(parts, place.target("r1", 1)).await.unwrap();
    assert_eq!(commits, [[1, 1, 80, 0, 400], [2, 1, 1, 0, 5]]);
    let chunks: Vec<_> = place.keys().await.into_iter().filter(|(id, _)| id == "long").map(|(_, c)| c).collect();
    assert_eq!(chunks, (0..80).collect::<Vec<u32>>());

    let bad = batch(&[whole.failing_at(79)]);
    let parts: Vec<_> = (0..8).map(|i| bad.slice(i * 10, 10)).collect();
    let commits = run(parts, place.target("r2", 1)).await.unwrap();
    assert_eq!(commits, [[0, 0, 0, 1, 0]], "no version of the table");
}
