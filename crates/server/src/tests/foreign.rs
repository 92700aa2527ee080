//! Tables that other programs wrote, and tables that were replaced.

use std::{fs, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryArray, Decimal128Array, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray,
        TimestampMicrosecondArray, UInt64Array,
    },
    datatypes::{Int32Type, Schema},
};
use lance::dataset::WriteMode;
use polylance_schema::Contract;
use serde_json::{Value, json};

use super::{Fixture, batch, contract, valid_requests, write};

/// Columns with the names, but not the types, that a run of polylance writes.
fn foreign() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("doc_id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("chunk", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("text", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None]))),
        ("embedding", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None]))),
        ("map_x", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("map_y", Arc::new(Int64Array::from(vec![1, 2]))),
        ("word", Arc::new(DictionaryArray::<Int32Type>::from_iter(["one", "two"]))),
        ("large", Arc::new(UInt64Array::from(vec![u64::MAX, 9_007_199_254_740_993]))),
        (
            "price",
            Arc::new(
                Decimal128Array::from(vec![12_345_678_901_234_567_891, 1]).with_precision_and_scale(38, 2).unwrap(),
            ),
        ),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![1, 1_700_000_000_000_001]))),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..], b""]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// The responses of every route for this table.
async fn request_everything(server: &Fixture) -> Vec<(String, u16, Value)> {
    let mut answers = Vec::new();
    for path in [
        "/v1/tables",
        "/v1/models",
        "/v1/models/docs",
        "/v1/tables/docs/documents/1",
        "/v1/tables/docs/facets?column=word",
        "/v1/tables/docs/facets?column=doc_id",
        "/v1/tables/docs/history",
        "/v1/tables/docs/map",
        "/v1/tables/docs/map?color=word",
    ] {
        let (status, answer) = server.get(path).await;
        answers.push((path.to_owned(), status.as_u16(), answer));
    }
    let searches = [
        json!({ "query": "one", "mode": "text" }),
        json!({ "query": "one", "mode": "vector" }),
        json!({ "query": "one", "mode": "hybrid" }),
        json!({ "query": "one", "by_document": true }),
        json!({ "query": "one", "rerank": true }),
        json!({ "vector": vec![0.5; super::DIM] }),
        json!({ "like": { "doc_id": "1", "chunk": null } }),
        json!({ "query": "one", "where": "word = 'one' AND large > 1" }),
    ];
    let statements = [
        "SELECT * FROM docs",
        "SELECT * FROM vector_search('docs', 'one')",
        "SELECT * FROM hybrid_search('docs', 'one')",
        "SELECT * FROM text_search('docs', 'one')",
        "SELECT * FROM neighbors('docs', '1')",
        "SELECT * FROM spans('docs', 'word')",
        "SELECT embed('one')",
        "SELECT cosine_similarity(embedding, embed('one')) FROM docs",
    ];
    let requests = searches.into_iter().map(|body| ("/v1/search", body));
    let requests = requests.chain(statements.map(|sql| ("/v1/sql", json!({ "sql": sql }))));
    for (path, body) in requests.chain(valid_requests()) {
        let (status, answer) = server.post(path, body.clone()).await;
        answers.push((format!("{path} {body}"), status.as_u16(), answer));
    }
    answers
}

#[tokio::test]
async fn a_foreign_table_never_causes_a_server_error() {
    let without_names = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    // A contract promises columns that are missing or have other types.
    let schema = foreign().schema();
    let promised = Schema::new_with_metadata(schema.fields().clone(), contract().to_metadata());
    let broken = foreign().with_schema(Arc::new(promised)).unwrap();
    for rows in [foreign(), without_names, broken] {
        let server = Fixture::over(rows).await;
        for (request, status, answer) in request_everything(&server).await {
            let error = &answer["error"];
            assert!(status < 500 && error["code"] != "failed", "{request}: {status} {answer}");
            assert!(status == 200 || error["message"].is_string(), "{request}: {answer}");
        }
    }
}

#[tokio::test]
async fn numbers_of_a_foreign_table_keep_all_digits() {
    let server = Fixture::over(foreign()).await;
    let body = json!({ "sql": "SELECT large, price, bytes, word FROM docs ORDER BY doc_id" }).to_string();
    let request = axum::http::Request::post("/v1/sql").header("content-type", "application/json");
    let (_, _, text) = server.send(request.body(body.into()).unwrap()).await;
    let row = r#"{"large":18446744073709551615,"price":123456789012345678.91,"bytes":"00ff","word":"one"}"#;
    assert!(text.contains(row) && text.contains("\"large\":9007199254740993"), "{text}");
}

#[tokio::test]
async fn a_newer_version_with_a_new_model_is_served_without_vector_search() {
    let server = Fixture::new().await;
    let rows = batch().await;
    let named = Contract { model: "org/other".into(), weights_hash: "ff".into(), ..contract() };
    let schema = Schema::new_with_metadata(rows.schema().fields().clone(), named.to_metadata());
    let rows = RecordBatch::try_new(Arc::new(schema), rows.columns().to_vec()).unwrap();
    write(&server.folder, rows.slice(0, 2), WriteMode::Overwrite).await;
    server.app.tables.refresh(&server.app.models, &server.app.metrics).await.unwrap();
    let counted = server.ok("/v1/sql", json!({ "sql": "SELECT count(*) AS n FROM docs" })).await;
    assert_eq!(counted["rows"][0]["n"], 2);
    for (path, body) in
        [("/v1/search", json!({ "query": "right", "mode": "vector" })), ("/v1/embeddings", json!({ "input": "right" }))]
    {
        assert_eq!(server.refused(path, body).await, (409, "model_missing".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_recreated_table_is_served() {
    let server = Fixture::new().await;
    let refresh = async || server.app.tables.refresh(&server.app.models, &server.app.metrics).await.unwrap();
    let folder = super::uri(&server.folder);
    let rows =
        async || server.ok("/v1/sql", json!({ "sql": "SELECT count(*) AS n FROM docs" })).await["rows"][0]["n"].clone();
    assert_eq!(rows().await, 6);

    // The same number of versions, with other rows.
    fs::remove_dir_all(&folder).unwrap();
    refresh().await;
    write(&server.folder, batch().await.slice(0, 2), WriteMode::Create).await;
    write(&server.folder, batch().await.slice(0, 1), WriteMode::Append).await;
    refresh().await;
    assert_eq!(rows().await, 3);
    let found = server.ok("/v1/search", json!({ "query": "right", "mode": "vector", "k": 100 })).await;
    assert_eq!((found["hits"].as_array().unwrap().len(), &found["version"]), (3, &json!(2)));

    // More versions, and another schema without a contract.
    fs::remove_dir_all(&folder).unwrap();
    write(&server.folder, foreign(), WriteMode::Create).await;
    for _ in 0..3 {
        write(&server.folder, foreign(), WriteMode::Append).await;
    }
    refresh().await;
    assert_eq!(rows().await, 8);
    let refused = server.refused("/v1/search", json!({ "query": "right", "mode": "vector" })).await;
    assert_eq!(refused, (400, "no_contract".to_owned()));

    // Overwritten in its own history.
    write(&server.folder, batch().await, WriteMode::Overwrite).await;
    refresh().await;
    assert_eq!(rows().await, 6);
}
