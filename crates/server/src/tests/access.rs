//! Tokens, host names, and the routes without a token.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};

use super::{Fixture, TOKEN, valid_requests};
use crate::{Limits, TokenHash, routes};

async fn protected() -> Fixture {
    Fixture::with(Limits::default(), vec![TokenHash::of(TOKEN).unwrap()]).await
}

async fn status(server: &Fixture, path: &str, authorization: Option<&str>) -> StatusCode {
    let mut request = Request::get(path);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    server.send(request.body(Body::empty()).unwrap()).await.0
}

#[tokio::test]
async fn api_routes_require_a_token() {
    let server = protected().await;
    let good = format!("Bearer {TOKEN}");
    for path in ["/v1/tables", "/v1/openapi.json", "/v1/tables/docs/facets?column=lang", "/metrics"] {
        for wrong in [None, Some("Bearer wrong-wrong-wrong"), Some("Basic YTpi"), Some(TOKEN), Some("Bearer ")] {
            assert_eq!(status(&server, path, wrong).await, StatusCode::UNAUTHORIZED, "{path} {wrong:?}");
        }
        assert_eq!(status(&server, path, Some(&good)).await, StatusCode::OK, "{path}");
    }
    for (path, body) in valid_requests() {
        assert_eq!(server.refused(path, body).await, (401, "unauthorized".to_owned()), "{path}");
    }
    let (_, answer) = server.post("/v1/embeddings", json!({})).await;
    assert_eq!(answer["error"]["type"], "authentication_error");
}

#[tokio::test]
async fn health_and_page_require_no_token() {
    let server = protected().await;
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(status(&server, path, None).await, StatusCode::OK, "{path}");
    }
    assert_eq!(server.get("/healthz").await.1, json!({ "status": "ok" }));
    server.app.begin_shutdown();
    assert_eq!(server.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn without_tokens_foreign_host_names_are_refused() {
    let request = |host: &str| Request::get("/v1/tables").header(header::HOST, host).body(Body::empty()).unwrap();
    let server = Fixture::new().await;
    assert_eq!(server.send(request("evil.example:8000")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(server.send(request("localhost:8000")).await.0, StatusCode::OK);
    let mut two = request("localhost:8000");
    two.headers_mut().append(header::HOST, "evil.example".parse().unwrap());
    assert_eq!(server.send(two).await.0, StatusCode::FORBIDDEN);
    let mut whole = request("localhost:8000");
    *whole.uri_mut() = "http://evil.example/v1/tables".parse().unwrap();
    assert_eq!(server.send(whole).await.0, StatusCode::FORBIDDEN);
    let server = protected().await;
    assert_eq!(server.send(request("search.example")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn cross_site_requests_of_browsers_are_refused() {
    let request =
        |path: &str, site: &str| Request::get(path).header("sec-fetch-site", site).body(Body::empty()).unwrap();
    for server in [Fixture::new().await, protected().await] {
        for path in ["/v1/tables", "/v1/tables/docs/facets?column=lang", "/metrics"] {
            let (status, _, text) = server.send(request(path, "cross-site")).await;
            assert!(status == StatusCode::FORBIDDEN && text.contains("foreign_page"), "{path}: {text}");
        }
        assert_eq!(server.send(request("/healthz", "cross-site")).await.0, StatusCode::OK);
    }
    let server = Fixture::new().await;
    for site in ["same-origin", "same-site", "none"] {
        assert_eq!(server.send(request("/v1/tables", site)).await.0, StatusCode::OK, "{site}");
    }
}

#[tokio::test]
async fn a_table_is_unreachable_until_its_store_answers() {
    let server = Fixture::new().await;
    let moved = server.folder.path().join("moved");
    let table = server.folder.path().join("docs.lance");
    std::fs::rename(&table, &moved).unwrap();
    server.app.tables.refresh(&server.app.models, &server.app.metrics).await.unwrap();
    assert!(server.app.tables.are_unreachable(std::time::Duration::ZERO));
    assert!(!server.app.tables.are_unreachable(std::time::Duration::from_hours(1)));
    std::fs::rename(&moved, &table).unwrap();
    server.app.tables.refresh(&server.app.models, &server.app.metrics).await.unwrap();
    assert!(!server.app.tables.are_unreachable(std::time::Duration::ZERO));
}

#[tokio::test]
async fn unknown_routes_and_methods_return_json_errors() {
    let server = Fixture::new().await;
    for path in
        ["/nothing", "/v1/nothing", "/../etc/passwd", "/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "//", "/v1"]
    {
        let (status, answer) = server.get(path).await;
        assert_eq!((status.as_u16(), &answer["error"]["code"]), (404, &json!("not_found")), "{path}");
    }
    for (method, path) in [(Method::DELETE, "/v1/tables"), (Method::GET, "/v1/search"), (Method::PUT, "/healthz")] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (status, headers, text) = server.send(request).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert!(headers.contains_key(header::ALLOW) && text.contains("method_not_allowed"), "{path}: {text}");
    }
}

#[tokio::test]
async fn every_response_has_an_id_and_is_counted() {
    let server = Fixture::new().await;
    let request = |id: &str| Request::get("/healthz").header("x-request-id", id).body(Body::empty()).unwrap();
    let (_, headers, _) = server.send(request("abc-1")).await;
    assert_eq!(headers["x-request-id"], "abc-1");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let (_, headers, _) = server.send(request("not a name")).await;
    assert_eq!(headers["x-request-id"].len(), 36);
    let _found = server.ok("/v1/search", json!({ "query": "right" })).await;
    let (_, _, text) = server.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    for line in [
        r#"polylance_http_requests_total{method="POST",route="/v1/search",status="200"} 1"#,
        r#"polylance_http_requests_total{method="GET",route="/healthz",status="200"} 2"#,
        r#"polylance_table_version{table="docs"} 2"#,
        "polylance_embed_inputs_count 1",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn the_openapi_document_describes_the_requests() {
    let (status, document) = Fixture::new().await.get("/v1/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (StatusCode::OK, &json!("3.1.0")));
    for (path, _) in valid_requests() {
        assert!(document["paths"][path]["post"]["requestBody"].is_object(), "{path}");
    }
    let where_ = &document["components"]["schemas"]["SearchParams"]["properties"]["where"];
    assert_ne!(*where_, Value::Null);
}

#[tokio::test]
async fn every_reference_of_the_openapi_document_resolves() {
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let (_, document) = Fixture::new().await.get("/v1/openapi.json").await;
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_route_is_in_the_openapi_document() {
    let (_, document) = Fixture::new().await.get("/v1/openapi.json").await;
    let mut expected = routes::paths();
    expected.sort_unstable();
    let mut described: Vec<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    described.sort_unstable();
    assert_eq!(described, expected);
}
