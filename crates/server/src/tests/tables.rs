//! `/v1/tables` and the routes below it.

use axum::http::StatusCode;
use serde_json::json;

use super::{DIM, Fixture};

#[tokio::test]
async fn the_list_of_tables_describes_each_table() {
    let (status, answer) = Fixture::new().await.get("/v1/tables").await;
    assert_eq!(status, StatusCode::OK);
    let table = &answer["tables"][0];
    assert_eq!((&table["name"], &table["rows"], &table["version"]), (&json!("docs"), &json!(6), &json!(2)));
    assert_eq!((&table["dim"], &table["text_index"], &table["map"]), (&json!(DIM), &json!(true), &json!(true)));
    assert_eq!(table["model"], format!("fake-model · mean · {DIM} · f32"));
    assert_eq!(table["facets"], json!(["lang", "kept", "topic"]));
    assert_eq!(table["spans"], json!(["entities"]));
    assert_eq!(table["columns"][0], json!({ "name": "doc_id", "type": "Utf8", "nullable": true }));
}

#[tokio::test]
async fn the_history_lists_versions_newest_first() {
    let server = Fixture::new().await;
    server.write_again().await;
    let (status, history) = server.get("/v1/tables/docs/history").await;
    assert_eq!((status, &history["quarantine"]), (StatusCode::OK, &json!([])));
    // The table was opened before the latest version was written, and lists it all the same.
    let versions = history["versions"].as_array().unwrap();
    let of = |name: &str| versions.iter().map(|version| version[name].clone()).collect::<Vec<_>>();
    assert_eq!(
        (of("version"), of("rows")),
        (json!([3, 2, 1]).as_array().unwrap().clone(), vec![json!(12), json!(6), json!(6)])
    );
    assert_eq!(of("operation")[0], "Append");
    assert!(of("run_id").iter().all(serde_json::Value::is_null), "{history}");
    assert_eq!(server.get("/v1/tables/other/history").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_document_returns_its_chunks_in_order() {
    let server = Fixture::new().await;
    let (status, answer) = server.get("/v1/tables/docs/documents/long%2Fone").await;
    assert_eq!((status, &answer["doc_id"]), (StatusCode::OK, &json!("long/one")));
    let chunks: Vec<_> = answer["chunks"].as_array().unwrap().iter().map(|row| row["chunk"].clone()).collect();
    assert_eq!(chunks, [0, 1]);
    for (path, code) in [
        ("/v1/tables/docs/documents/nobody", "no_document"),
        ("/v1/tables/docs/documents/..%2F..%2Fetc%2Fpasswd", "no_document"),
        ("/v1/tables/docs/documents/'%20OR%201=1%20--", "no_document"),
        ("/v1/tables/other/documents/d0", "no_table"),
        ("/v1/tables/docs/documents/a/b", "not_found"),
    ] {
        let (status, answer) = server.get(path).await;
        assert_eq!((status.as_u16(), &answer["error"]["code"]), (404, &json!(code)), "{path}");
    }
    let (status, answer) = server.get("/v1/tables/docs/documents/%ff").await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn facets_list_the_most_frequent_values_first() {
    let server = Fixture::new().await;
    let counted = async |query: &str| server.get(&format!("/v1/tables/docs/facets?{query}")).await;
    let (status, answer) = counted("column=lang").await;
    assert_eq!(status, StatusCode::OK);
    let values =
        json!([{ "value": "eng", "count": 4 }, { "value": "deu", "count": 1 }, { "value": "fra", "count": 1 }]);
    assert_eq!(answer, json!({ "column": "lang", "values": values }));
    let (_, answer) = counted("column=topic&where=lang%20%3D%20'eng'&limit=1").await;
    assert_eq!(answer["values"], json!([{ "value": "law", "count": 2 }]));
    let (_, answer) = counted("column=kept").await;
    assert_eq!(answer["values"], json!([{ "value": true, "count": 5 }, { "value": false, "count": 1 }]));
    for (query, status, code) in [
        ("column=text", 400, "no_facet"),
        ("column=nothing", 400, "no_facet"),
        ("column=lang&where=nothing=1", 400, "invalid_filter"),
        ("column=lang&where=1%3D1)%20UNION%20SELECT%20(1", 400, "invalid_filter"),
        ("column=lang&limit=100000", 422, "too_many_values"),
        ("column=lang&limit=x", 400, "invalid_request"),
        ("", 400, "invalid_request"),
    ] {
        let (got, answer) = counted(query).await;
        assert_eq!((got.as_u16(), &answer["error"]["code"]), (status, &json!(code)), "{query}: {answer}");
    }
}

#[tokio::test]
async fn the_map_has_one_point_per_row() {
    let server = Fixture::new().await;
    let (status, answer) = server.get("/v1/tables/docs/map?color=lang").await;
    assert_eq!((status, &answer["explained"]), (StatusCode::OK, &json!(null)));
    let points = &answer["points"];
    for name in ["x", "y", "doc_id", "chunk", "color"] {
        assert_eq!(points[name].as_array().unwrap().len(), 6, "{name}");
    }
    let row = points["doc_id"].as_array().unwrap().iter().position(|id| id == "d3").unwrap();
    assert_eq!((&points["x"][row], &points["color"][row]), (&json!(3.0), &json!("deu")));
    let (_, answer) = server.get("/v1/tables/docs/map?limit=2").await;
    assert_eq!((answer["points"]["x"].as_array().unwrap().len(), &answer["points"]["color"]), (2, &json!(null)));
    for (path, status, code) in [
        ("/v1/tables/docs/map?color=text", 400, "no_facet"),
        ("/v1/tables/docs/map?limit=0", 422, "too_many_points"),
        ("/v1/tables/docs/map?limit=10000000", 422, "too_many_points"),
        ("/v1/tables/other/map", 404, "no_table"),
    ] {
        let (got, answer) = server.get(path).await;
        assert_eq!((got.as_u16(), &answer["error"]["code"]), (status, &json!(code)), "{path}");
    }
}
