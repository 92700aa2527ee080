//! `/v1/embeddings`, `/v1/rerank`, `/v1/predict`.

use base64::{Engine, prelude::BASE64_STANDARD};
use polylance_testkit::FakeBackend;
use serde_json::{Value, json};

use super::{DIM, Fixture, vectors};

const EMBEDDINGS: &str = "/v1/embeddings";

fn floats(item: &Value) -> Vec<f32> {
    serde_json::from_value(item["embedding"].clone()).unwrap()
}

#[tokio::test]
async fn embeddings_match_the_table_in_both_encodings() {
    let server = Fixture::new().await;
    let answer = server.ok(EMBEDDINGS, json!({ "input": ["one text", "another"], "model": "fake-model" })).await;
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("fake-model")));
    let both = [floats(&answer["data"][0]), floats(&answer["data"][1])].concat();
    assert_eq!(both, vectors(&["one text", "another"], "query: ").await);
    assert_eq!((&answer["data"][1]["object"], &answer["data"][1]["index"]), (&json!("embedding"), &json!(1)));
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 9, "total_tokens": 9 }));

    let request = json!({ "input": "one text", "encoding_format": "base64", "input_type": "passage", "model": "docs" });
    let answer = server.ok(EMBEDDINGS, request).await;
    let bytes = BASE64_STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let read: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(read, vectors(&["one text"], "").await);
}

#[tokio::test]
async fn token_ids_are_used_unchanged_and_dimensions_are_cut() {
    let server = Fixture::new().await;
    let one = server.ok(EMBEDDINGS, json!({ "input": [0, 7, 2] })).await;
    let two = server.ok(EMBEDDINGS, json!({ "input": [[0, 7, 2], [0, 2]], "dimensions": 3 })).await;
    assert_eq!(floats(&two["data"][0]), floats(&one["data"][0])[..3]);
    assert_eq!((two["data"].as_array().unwrap().len(), &two["usage"]["prompt_tokens"]), (2, &json!(5)));
}

#[tokio::test]
async fn invalid_inputs_return_errors_in_the_openai_shape() {
    let server = Fixture::new().await;
    let long = "word ".repeat(20);
    let over = [vec![0], vec![7; 5000], vec![2]].concat();
    for (body, status, code) in [
        (json!({ "input": [] }), 400, "invalid_input"),
        (json!({ "input": 7 }), 400, "invalid_request"),
        (json!({ "input": ["a", 7] }), 400, "invalid_request"),
        (json!({ "input": [-1] }), 400, "invalid_request"),
        (json!({ "input": vec!["a"; 2049] }), 422, "too_many_inputs"),
        (json!({ "input": over }), 400, "invalid_input"),
        (json!({ "input": [15339, 1917] }), 400, "foreign_tokens"),
        (json!({ "input": [[0, 7, 2], [0, 7]] }), 400, "foreign_tokens"),
        (json!({ "input": [[]] }), 400, "foreign_tokens"),
        (json!({ "input": [[2]] }), 400, "foreign_tokens"),
        (json!({ "input": null }), 400, "invalid_request"),
        (json!({ "input": "a", "truncate_prompt_tokens": -1 }), 400, "invalid_request"),
        (json!({ "input": long }), 400, "context_length_exceeded"),
        (json!({ "input": FakeBackend::REFUSED }), 400, "invalid_input"),
        (json!({ "input": "a", "model": "text-embedding-3-small" }), 404, "model_not_found"),
        (json!({ "input": "a", "dimensions": 0 }), 400, "invalid_dimensions"),
        (json!({ "input": "a", "dimensions": DIM + 1 }), 400, "invalid_dimensions"),
        (json!({ "input": "a", "encoding_format": "hex" }), 400, "invalid_request"),
        (json!({ "model": "docs" }), 400, "invalid_request"),
    ] {
        let (got, answer) = server.post(EMBEDDINGS, body.clone()).await;
        let error = &answer["error"];
        assert_eq!((got.as_u16(), &error["code"]), (status, &json!(code)), "{body}");
        assert!(error["type"] == "invalid_request_error" && error.get("param").is_some(), "{error}");
    }
}

#[tokio::test]
async fn as_many_inputs_as_openai_accepts_are_embedded() {
    let server = Fixture::new().await;
    let answer = server.ok(EMBEDDINGS, json!({ "input": vec!["a b"; 2048] })).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 2048);
    let (_, refused) = server.post(EMBEDDINGS, json!({ "input": vec!["a b"; 2049] })).await;
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--max-inputs"), "{refused}");
    let (_, refused) = server.post(EMBEDDINGS, json!({ "input": [15339, 1917] })).await;
    assert!(refused["error"]["hint"].as_str().unwrap().contains("check_embedding_ctx_length=False"), "{refused}");
}

#[tokio::test]
async fn null_fields_count_as_absent() {
    let server = Fixture::new().await;
    for (path, plain, nulls) in [
        (
            EMBEDDINGS,
            json!({ "input": "a" }),
            json!({ "model": null, "encoding_format": null, "dimensions": null, "input_type": null, "user": null }),
        ),
        (
            "/v1/search",
            json!({ "query": "right", "columns": ["doc_id"] }),
            json!({ "table": null, "vector": null, "like": null, "mode": null, "k": null, "where": null,
                    "by_document": null, "fusion": null, "vector_weight": null, "nprobes": null, "refine": null,
                    "ef": null, "rerank": null }),
        ),
        (
            "/v1/search",
            json!({ "like": { "doc_id": "d0" } }),
            json!({ "like": { "doc_id": "d0", "chunk": null }, "query": null, "columns": null }),
        ),
        ("/v1/sql", json!({ "sql": "SELECT 1 AS one" }), json!({ "parameters": null })),
        (
            "/v1/rerank",
            json!({ "query": "q", "documents": ["a"] }),
            json!({ "top_n": null, "return_documents": null, "model": null, "user": null }),
        ),
        (
            "/v1/predict",
            json!({ "head": "people", "inputs": [{ "text": "Ada" }] }),
            json!({ "inputs": [{ "text": "Ada", "question": null, "choices": null }], "model": null }),
        ),
    ] {
        let mut expected = server.ok(path, plain.clone()).await;
        let mut body = plain.clone();
        body.as_object_mut().unwrap().extend(nulls.as_object().unwrap().clone());
        let mut answer = server.ok(path, body).await;
        for answer in [&mut expected, &mut answer] {
            answer.as_object_mut().unwrap().remove("took_ms");
        }
        assert_eq!(answer, expected, "{path}");
    }
    // A null inside a list is an error.
    for (path, body) in [
        (EMBEDDINGS, json!({ "input": ["a", null] })),
        ("/v1/search", json!({ "vector": [1.0, null] })),
        ("/v1/rerank", json!({ "query": "q", "documents": [null] })),
    ] {
        assert_eq!(server.refused(path, body).await, (400, "invalid_request".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn models_are_listed_in_the_openai_shape() {
    let server = Fixture::new().await;
    let (status, listing) = server.get("/v1/models").await;
    assert_eq!((status.as_u16(), &listing["object"]), (200, &json!("list")));
    let ids: Vec<&Value> = listing["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["fake-model", "docs"]);
    for model in listing["data"].as_array().unwrap() {
        assert!(model["object"] == "model" && model["created"].is_u64() && model["owned_by"].is_string(), "{model}");
        let id = model["id"].as_str().unwrap();
        assert_eq!(&server.get(&format!("/v1/models/{id}")).await.1, model);
        server.ok(EMBEDDINGS, json!({ "input": "a", "model": id })).await;
    }
    let (status, answer) = server.get("/v1/models/gpt-4").await;
    let error = &answer["error"];
    assert_eq!(
        (status.as_u16(), &error["code"], &error["type"]),
        (404, &json!("model_not_found"), &json!("invalid_request_error"))
    );
}

#[tokio::test]
async fn passages_are_ordered_by_relevance() {
    let server = Fixture::new().await;
    // The fake reranker prefers long passages.
    let request = json!({ "query": "q", "documents": ["aa", "aaaa", "aaa"], "top_n": 2, "return_documents": true });
    let answer = server.ok("/v1/rerank", request).await;
    let expected = [
        json!({ "index": 1, "relevance_score": 4.0, "document": { "text": "aaaa" } }),
        json!({ "index": 2, "relevance_score": 3.0, "document": { "text": "aaa" } }),
    ];
    assert_eq!(answer, json!({ "results": expected }));
    let plain = server.ok("/v1/rerank", json!({ "query": "q", "documents": ["aa"] })).await;
    assert_eq!(plain["results"], json!([{ "index": 0, "relevance_score": 2.0 }]));
    let objects = json!({ "query": "q", "documents": [{ "text": "aa", "id": 7 }, "a"] });
    assert_eq!(server.ok("/v1/rerank", objects).await["results"][0], json!({ "index": 0, "relevance_score": 2.0 }));
    for (body, status, code) in [
        (json!({ "query": " ", "documents": ["a"] }), 400, "invalid_query"),
        (json!({ "query": "q", "documents": vec!["a"; 2049] }), 422, "too_many_inputs"),
        (json!({ "query": "q", "documents": [FakeBackend::REFUSED] }), 400, "invalid_input"),
        (json!({ "query": "q" }), 400, "invalid_request"),
    ] {
        assert_eq!(server.refused("/v1/rerank", body.clone()).await, (status, code.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn a_head_returns_a_result_for_each_input() {
    let server = Fixture::new().await;
    let inputs = json!(["hello Ada", FakeBackend::REFUSED]);
    let answer = server.ok("/v1/predict", json!({ "head": "people", "inputs": inputs })).await;
    assert_eq!((&answer["head"], &answer["task"]), (&json!("people"), &json!("ner")));
    let span = json!({ "label": "NAME", "score": 1.0, "start": 6, "end": 9, "text": "Ada" });
    assert_eq!(answer["results"][0], json!({ "spans": [span] }));
    assert!(answer["results"][1]["error"].as_str().unwrap().contains("refuses"));
    let inputs = json!([{ "text": "x", "choices": ["a", "bb"] }]);
    let answer = server.ok("/v1/predict", json!({ "head": "longest", "inputs": inputs })).await;
    assert_eq!(answer["results"][0]["choices"][1], json!({ "choice": "bb", "score": 2.0 }));
    for (body, status, code) in [
        (json!({ "head": "nobody", "inputs": ["a"] }), 404, "no_head"),
        (json!({ "head": "people", "inputs": vec!["a"; 2049] }), 422, "too_many_inputs"),
        (json!({ "head": "longest", "inputs": [{ "text": "x", "choices": vec!["a"; 2049] }] }), 422, "too_many_inputs"),
        (json!({ "head": "people", "inputs": [1] }), 400, "invalid_request"),
        (json!({ "head": "people", "inputs": "a" }), 400, "invalid_request"),
    ] {
        assert_eq!(server.refused("/v1/predict", body.clone()).await, (status, code.to_owned()), "{body}");
    }
}
