//! Invalid bodies for each route.

use serde_json::json;

use super::Attack;

/// Values of the wrong type, missing values, too many, too long, and numbers that are not finite.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn bodies() -> Vec<Attack> {
    let many = |n: usize| vec!["a"; n];
    let search = [
        json!({}),
        json!({ "query": 1 }),
        json!({ "query": null }),
        json!({ "query": "" }),
        json!({ "query": " \n\t" }),
        json!({ "query": ["a"] }),
        json!({ "query": "a", "vector": [1.0] }),
        json!({ "vector": [] }),
        json!({ "vector": [1.0] }),
        json!({ "vector": vec![1e300; 384] }),
        json!({ "vector": vec![-1e300; 384] }),
        json!({ "vector": vec!["NaN"; 384] }),
        json!({ "vector": vec![json!(null); 384] }),
        json!({ "vector": vec![0.1; 100_000] }),
        json!({ "vector": "AAAA" }),
        json!({ "like": {} }),
        json!({ "like": "eng-1" }),
        json!({ "like": { "doc_id": "nobody" } }),
        json!({ "like": { "doc_id": "' OR 1=1 --" } }),
        json!({ "like": { "doc_id": "a", "chunk": -1 } }),
        json!({ "like": { "doc_id": "a", "chunk": 1e10 } }),
        json!({ "query": "a", "k": 0 }),
        json!({ "query": "a", "k": -1 }),
        json!({ "query": "a", "k": 1.5 }),
        json!({ "query": "a", "k": "ten" }),
        json!({ "query": "a", "k": 1_000_000_000 }),
        json!({ "query": "a", "k": u64::MAX }),
        json!({ "query": "a", "mode": "sideways" }),
        json!({ "query": "a", "mode": 1 }),
        json!({ "query": "a", "table": "../udhr" }),
        json!({ "query": "a", "table": "/etc/passwd" }),
        json!({ "query": "a", "table": "s3://bucket/x" }),
        json!({ "query": "a", "table": ["udhr"] }),
        json!({ "query": "a", "fusion": "magic" }),
        json!({ "query": "a", "fusion": "weighted", "vector_weight": 7 }),
        json!({ "query": "a", "fusion": "weighted", "vector_weight": -1 }),
        json!({ "query": "a", "nprobes": u64::MAX }),
        json!({ "query": "a", "nprobes": 0 }),
        json!({ "query": "a", "refine": 4_000_000_000_u32 }),
        json!({ "query": "a", "ef": u64::MAX }),
        json!({ "query": "a", "rerank": true }),
        json!({ "query": "a", "rerank": "yes" }),
        json!({ "query": "a", "columns": ["embedding"] }),
        json!({ "query": "a", "columns": ["nothing"] }),
        json!({ "query": "a", "columns": "text" }),
        json!({ "query": "a", "where": 1 }),
        json!({ "query": "a", "uri": "/etc" }),
        json!({ "vector": [1.0], "mode": "text" }),
    ];
    let embeddings = [
        json!({}),
        json!({ "input": [] }),
        json!({ "input": null }),
        json!({ "input": 1 }),
        json!({ "input": {} }),
        json!({ "input": [[]] }),
        json!({ "input": [["a"]] }),
        json!({ "input": ["a", 1] }),
        json!({ "input": [-1] }),
        json!({ "input": [4_000_000_000_u32] }),
        json!({ "input": vec![0; 100_000] }),
        json!({ "input": [15339, 1917] }),
        json!({ "input": many(2049) }),
        json!({ "input": "word ".repeat(100_000) }),
        json!({ "input": "a", "model": "/etc/passwd" }),
        json!({ "input": "a", "model": 1 }),
        json!({ "input": "a", "dimensions": 0 }),
        json!({ "input": "a", "dimensions": -1 }),
        json!({ "input": "a", "dimensions": 100_000 }),
        json!({ "input": "a", "encoding_format": "zip" }),
        json!({ "input": "a", "input_type": "both" }),
        json!({ "input": "a", "more": 1 }),
    ];
    let others = [
        ("/v1/rerank", json!({ "query": "a", "documents": ["b"] })),
        ("/v1/rerank", json!({ "query": "a", "documents": many(1000) })),
        ("/v1/rerank", json!({ "query": "a", "documents": "b" })),
        ("/v1/rerank", json!({ "query": "a", "documents": [1] })),
        ("/v1/rerank", json!({ "documents": ["b"] })),
        ("/v1/rerank", json!({ "query": "a", "documents": [{ "text": null }] })),
        ("/v1/predict", json!({ "head": "nobody", "inputs": ["a"] })),
        ("/v1/predict", json!({ "head": "../x", "inputs": ["a"] })),
        ("/v1/predict", json!({ "head": "a", "inputs": many(1000) })),
        ("/v1/predict", json!({ "head": "a", "inputs": [{ "text": 1 }] })),
        ("/v1/predict", json!({ "inputs": [] })),
        ("/v1/sql", json!({})),
        ("/v1/sql", json!({ "sql": 1 })),
        ("/v1/sql", json!({ "sql": ["SELECT 1"] })),
        ("/v1/sql", json!({ "sql": "SELECT 1", "more": true })),
    ];
    let no_json =
        ["", "{", "[]", "null", "\"x\"", "{\"query\": NaN}", "{\"vector\": [NaN]}", "{\"vector\": [1e999]}", "\u{0}"];
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let large = format!("{{\"query\": \"{}\"}}", "x".repeat(9 << 20));

    let mut attacks: Vec<_> = search.map(|body| Attack::Post("/v1/search", body.to_string())).into();
    attacks.extend(embeddings.map(|body| Attack::Post("/v1/embeddings", body.to_string())));
    attacks.extend(others.map(|(route, body)| Attack::Post(route, body.to_string())));
    attacks.extend(no_json.map(|body| Attack::Post("/v1/search", body.to_owned())));
    for route in ["/v1/search", "/v1/sql", "/v1/embeddings", "/v1/rerank", "/v1/predict"] {
        attacks.push(Attack::Post(route, deep.clone()));
        attacks.push(Attack::Post(route, large.clone()));
    }
    attacks
}
