//! Bodies that are too large, too slow, cut off, or not JSON.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{Request, StatusCode, header},
};
use futures::{StreamExt, stream};
use serde_json::json;

use super::{Fixture, valid_requests};
use crate::{Limits, limits::body::MAX_LARGE_BODIES};

const JSON: &str = "application/json";

async fn status(server: &Fixture, kind: &str, body: Body) -> (StatusCode, String) {
    let request = Request::post("/v1/search").header(header::CONTENT_TYPE, kind).body(body).unwrap();
    let (status, _, text) = server.send(request).await;
    (status, text)
}

#[tokio::test]
async fn bodies_must_be_json_within_the_size_limit() {
    let server = Fixture::with(Limits { max_body_bytes: 100, ..Limits::default() }, Vec::new()).await;
    let right = r#"{"query": "right"}"#;
    assert_eq!(status(&server, "application/json; charset=utf-8", right.into()).await.0, StatusCode::OK);
    assert_eq!(status(&server, "text/plain", right.into()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let large = format!(r#"{{"query": "{}"}}"#, "x".repeat(100));
    let (got, text) = status(&server, JSON, large.clone().into()).await;
    assert!(got == StatusCode::PAYLOAD_TOO_LARGE && text.contains("--max-body"), "{text}");
    // Also without a `Content-Length`.
    let parts: Vec<Result<Bytes, std::io::Error>> =
        large.into_bytes().chunks(7).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    let parts = Body::from_stream(stream::iter(parts));
    assert_eq!(status(&server, JSON, parts).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    for broken in
        ["", "{", "[]", "null", "\u{0}", r#"{"query": "a"} {}"#, r#"{"query": 1}"#, r#"{"query": "a", "query": "b"}"#]
    {
        assert_eq!(status(&server, JSON, broken.into()).await.0, StatusCode::BAD_REQUEST, "{broken}");
    }
}

#[tokio::test]
async fn few_large_bodies_are_read_at_once() {
    let limits = Limits { body_timeout: Duration::from_millis(20), ..Limits::default() };
    let server = Fixture::with(limits, Vec::new()).await;
    let large = json!({ "input": vec!["x".repeat(2 << 20)] });
    let held = server.app.bodies.large_bodies.acquire_many(MAX_LARGE_BODIES as u32).await.unwrap();
    assert_eq!(server.refused("/v1/embeddings", large.clone()).await, (408, "body_too_slow".to_owned()));
    server.ok("/v1/embeddings", json!({ "input": "x" })).await;
    drop(held);
    let server = Fixture::new().await;
    server.ok("/v1/embeddings", large).await;
    assert_eq!(server.app.bodies.large_bodies.available_permits(), MAX_LARGE_BODIES);
    // A body without inputs has a lower limit.
    let query = json!({ "query": "x".repeat(2 << 20) });
    assert_eq!(server.refused("/v1/search", query).await, (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn deeply_nested_bodies_are_refused() {
    let server = Fixture::new().await;
    for (path, _) in valid_requests() {
        let body = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let request = Request::post(path).header(header::CONTENT_TYPE, JSON).body(body.into()).unwrap();
        assert_eq!(server.send(request).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_or_breaks_off_is_refused() {
    let server =
        Fixture::with(Limits { body_timeout: Duration::from_millis(1), ..Limits::default() }, Vec::new()).await;
    let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
    let (got, text) = status(&server, JSON, Body::from_stream(first.chain(stream::pending()))).await;
    assert!(got == StatusCode::REQUEST_TIMEOUT && text.contains("body_too_slow"), "{text}");
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    let (got, text) = status(&server, JSON, Body::from_stream(broken)).await;
    assert!(got == StatusCode::BAD_REQUEST && text.contains("body_cut_off"), "{text}");
}
