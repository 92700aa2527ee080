//! `/v1/search`.

use super::{DIM, Fixture, vectors};
use serde_json::{Value, json};

#[tokio::test]
async fn conditions_with_expensive_functions_are_refused() {
    let server = Fixture::new().await;
    let bomb = format!("levenshtein(concat({}), text) < 0", vec!["text"; 60].join(","));
    for condition in [
        bomb.as_str(),
        "`levenshtein`(text, text) < 1",
        "`repeat`('x', 300000000) = text",
        "encode(text, 'hex') = text",
        "overlay(text placing text from 1 for 0) = text",
        "array_to_string([text, text], '') = text",
        "text ~ text",
        "text LIKE text",
        "regexp_like(text, '(\\w{100}){50}')",
        "arrow_metadata(topic) IS NULL",
    ] {
        let refused = server.refused(SEARCH, json!({ "query": "right", "where": condition })).await;
        assert!(["not_allowed", "invalid_filter"].contains(&refused.1.as_str()), "{condition}: {refused:?}");
    }
    for condition in [
        "lang = 'eng' AND lower(text) LIKE '%right%'",
        "starts_with(text, 'every') OR length(text) > 3",
        "regexp_like(text, '^e\\w+')",
        "coalesce(rating, 0) > 1 AND NOT kept IS NULL",
        "topic.label = 'life'",
        "lang || '-' || doc_id = 'eng-d1'",
    ] {
        let found = server.ok(SEARCH, json!({ "query": "right", "where": condition })).await;
        assert!(!found["hits"].as_array().unwrap().is_empty(), "{condition}");
    }
}

const SEARCH: &str = "/v1/search";

fn ids(response: &Value) -> Vec<&str> {
    response["hits"].as_array().unwrap().iter().map(|hit| hit["row"]["doc_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_text_query_is_hybrid_if_the_table_has_a_text_index() {
    let server = Fixture::new().await;
    let response = server.ok(SEARCH, json!({ "query": "everyone has the right to life", "k": 2 })).await;
    assert_eq!(
        (&response["table"], &response["mode"], &response["version"]),
        (&json!("docs"), &json!("hybrid"), &json!(2))
    );
    assert!(response["took_ms"].is_number());
    assert_eq!(ids(&response)[0], "d1");
    let hit = &response["hits"][0];
    assert_eq!((&hit["rank"], &hit["vector"]["rank"], &hit["text"]["rank"]), (&json!(1), &json!(1), &json!(1)));
    assert!(hit["vector"]["distance"].as_f64().unwrap() < 1e-5 && hit["text"]["bm25"].as_f64().unwrap() > 0.0);
    assert_eq!(hit["rerank"], Value::Null);
    let part = |name: &str| hit["parts"][name].as_f64().unwrap();
    assert!((part("vector") + part("text") - hit["score"].as_f64().unwrap()).abs() < 1e-6, "{hit}");
    assert!((part("vector") - (1.0 - part("distance"))).abs() < 1e-6 && part("text") > 0.0, "{hit}");
    assert_eq!((&hit["parts"]["bm25"], &hit["parts"]["distance"]), (&hit["text"]["bm25"], &hit["vector"]["distance"]));
    assert_eq!((&hit["row"]["rating"], hit["row"].get("score")), (&json!(7.0), None));
    assert!(hit["score"].as_f64().unwrap() > 1.0, "the text itself, with all words of the query");
    assert!(hit["row"].get("embedding").is_none());
    assert_eq!(hit["row"]["topic"], json!({ "label": "life", "score": 0.5 }));
}

#[tokio::test]
async fn each_mode_returns_its_own_ranks() {
    let server = Fixture::new().await;
    let ranks = async |mode: &str| {
        let response = server.ok(SEARCH, json!({ "query": "right", "mode": mode, "k": 1 })).await;
        assert_eq!(response["mode"], mode);
        (response["hits"][0]["vector"].is_object(), response["hits"][0]["text"].is_object())
    };
    assert_eq!(ranks("vector").await, (true, false));
    assert_eq!(ranks("text").await, (false, true));
}

#[tokio::test]
async fn a_vector_or_a_row_can_be_the_query() {
    let server = Fixture::new().await;
    let vector = vectors(&["jeder hat das Recht auf Leben"], "query: ").await;
    let response = server.ok(SEARCH, json!({ "vector": vector, "k": 1 })).await;
    assert_eq!((ids(&response), &response["mode"]), (vec!["d3"], &json!("vector")));
    let response = server.ok(SEARCH, json!({ "like": { "doc_id": "d3" }, "k": 9 })).await;
    assert!(!ids(&response).contains(&"d3") && ids(&response).len() == 5, "{response}");
}

#[tokio::test]
async fn conditions_by_document_and_columns_are_applied() {
    let server = Fixture::new().await;
    let search = json!({ "query": "law", "where": "lang = 'eng' AND kept", "k": 9, "columns": ["lang", "doc_id"] });
    let response = server.ok(SEARCH, search).await;
    assert_eq!(ids(&response).len(), 3);
    assert!(response["hits"].as_array().unwrap().iter().all(|hit| hit["row"].as_object().unwrap().len() == 2));
    assert_eq!(response["hits"][0]["row"]["lang"], "eng");
    let response = server.ok(SEARCH, json!({ "query": "law", "by_document": true, "k": 9 })).await;
    assert_eq!(ids(&response).iter().filter(|id| **id == "long/one").count(), 1);
}

#[tokio::test]
async fn the_reranker_decides_the_order() {
    let server = Fixture::new().await;
    let response = server.ok(SEARCH, json!({ "query": "right", "rerank": true, "k": 3 })).await;
    // The fake reranker prefers long passages.
    assert_eq!(ids(&response)[0], "d1");
    assert_eq!(response["hits"][1]["rerank"], json!({ "rank": 2, "score": 30.0 }));
}

#[tokio::test]
async fn invalid_searches_return_their_error() {
    let server = Fixture::new().await;
    let nan: Vec<Value> = (0..DIM).map(|_| json!(1e300)).collect();
    for (body, status, code) in [
        (json!({}), 400, "invalid_query"),
        (json!({ "query": "" }), 400, "invalid_query"),
        (json!({ "query": "a", "vector": [1.0] }), 400, "invalid_query"),
        (json!({ "vector": [1.0, 2.0] }), 400, "invalid_query"),
        (json!({ "vector": nan }), 400, "invalid_query"),
        (json!({ "vector": ["a"] }), 400, "invalid_request"),
        (json!({ "query": "a", "k": 0 }), 400, "invalid_query"),
        (json!({ "query": "a", "k": -1 }), 400, "invalid_request"),
        (json!({ "query": "a", "k": 1001 }), 422, "too_many_hits"),
        (json!({ "query": "a", "mode": "magic" }), 400, "invalid_request"),
        (json!({ "query": "a", "nprobes": 10_000_000 }), 422, "too_much_effort"),
        (json!({ "query": "a", "fusion": "weighted", "vector_weight": 2 }), 400, "invalid_query"),
        (json!({ "query": "a", "fusion": "rrf", "text_weight": 0.5 }), 400, "invalid_query"),
        (json!({ "query": "a", "text_weight": -1 }), 400, "invalid_query"),
        (json!({ "query": "a", "fusion": "magic" }), 400, "invalid_request"),
        (json!({ "query": "a", "table": "other" }), 404, "no_table"),
        (json!({ "query": "a", "columns": ["embedding"] }), 400, "no_column"),
        (json!({ "query": "a", "columns": ["nothing"] }), 400, "no_column"),
        (json!({ "query": "a", "columns": ["lang", "lang"] }), 400, "no_column"),
        (json!({ "query": "a", "where": "nothing = 1" }), 400, "invalid_filter"),
        (json!({ "query": "a", "where": "lang ==== " }), 400, "invalid_filter"),
        (json!({ "query": "a", "where": format!("chunk{} = 0", "+1".repeat(2000)) }), 422, "too_long"),
        (json!({ "like": { "doc_id": "nobody" } }), 400, "invalid_query"),
        (json!({ "like": { "doc_id": "it's", "chunk": 1 } }), 400, "invalid_query"),
        (json!({ "query": "a", "unknown": 1 }), 400, "invalid_request"),
    ] {
        assert_eq!(server.refused(SEARCH, body.clone()).await, (status, code.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn a_newer_version_is_searched_after_a_refresh() {
    let server = Fixture::new().await;
    server.write_again().await;
    let before = server.ok(SEARCH, json!({ "query": "right", "k": 100 })).await;
    server.app.tables.refresh(&server.app.models, &server.app.metrics).await.unwrap();
    let after = server.ok(SEARCH, json!({ "query": "right", "k": 100 })).await;
    assert_eq!((ids(&before).len(), ids(&after).len()), (6, 12));
    assert!(after["version"].as_u64() > before["version"].as_u64());
}
