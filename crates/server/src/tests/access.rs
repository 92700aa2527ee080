//! Tokens, names, and what is open to everybody.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};

use super::{Fixture, TOKEN, right};
use crate::{Limits, TokenHash};

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
async fn nothing_of_the_tables_is_told_without_a_token() {
    let server = protected().await;
    let good = format!("Bearer {TOKEN}");
    for path in ["/v1/tables", "/v1/openapi.json", "/v1/tables/docs/facets?column=lang", "/metrics"] {
        for wrong in [None, Some("Bearer wrong-wrong-wrong"), Some("Basic YTpi"), Some(TOKEN), Some("Bearer ")] {
            assert_eq!(status(&server, path, wrong).await, StatusCode::UNAUTHORIZED, "{path} {wrong:?}");
        }
        assert_eq!(status(&server, path, Some(&good)).await, StatusCode::OK, "{path}");
    }
    for (path, body) in right() {
        assert_eq!(server.refused(path, body).await, (401, "unauthorized".to_owned()), "{path}");
    }
    let (_, answer) = server.post("/v1/embeddings", json!({})).await;
    assert_eq!(answer["error"]["type"], "authentication_error");
}

#[tokio::test]
async fn health_and_page_are_open() {
    let server = protected().await;
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(status(&server, path, None).await, StatusCode::OK, "{path}");
    }
    assert_eq!(server.get("/healthz").await.1, json!({ "status": "ok" }));
    server.app.end();
    assert_eq!(server.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn without_tokens_other_names_than_this_machines_are_refused() {
    let ask = |host: &str| Request::get("/v1/tables").header(header::HOST, host).body(Body::empty()).unwrap();
    let server = Fixture::new().await;
    assert_eq!(server.send(ask("evil.example:8000")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(server.send(ask("localhost:8000")).await.0, StatusCode::OK);
    let mut two = ask("localhost:8000");
    two.headers_mut().append(header::HOST, "evil.example".parse().unwrap());
    assert_eq!(server.send(two).await.0, StatusCode::FORBIDDEN);
    let mut whole = ask("localhost:8000");
    *whole.uri_mut() = "http://evil.example/v1/tables".parse().unwrap();
    assert_eq!(server.send(whole).await.0, StatusCode::FORBIDDEN);
    let server = protected().await;
    assert_eq!(server.send(ask("search.example")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_page_of_another_site_makes_no_browser_ask() {
    let ask = |path: &str, site: &str| Request::get(path).header("sec-fetch-site", site).body(Body::empty()).unwrap();
    for server in [Fixture::new().await, protected().await] {
        for path in ["/v1/tables", "/v1/tables/docs/facets?column=lang", "/metrics"] {
            let (status, _, text) = server.send(ask(path, "cross-site")).await;
            assert!(status == StatusCode::FORBIDDEN && text.contains("foreign_page"), "{path}: {text}");
        }
        assert_eq!(server.send(ask("/healthz", "cross-site")).await.0, StatusCode::OK);
    }
    let server = Fixture::new().await;
    for site in ["same-origin", "same-site", "none"] {
        assert_eq!(server.send(ask("/v1/tables", site)).await.0, StatusCode::OK, "{site}");
    }
}

#[tokio::test]
async fn a_server_whose_stores_do_not_answer_is_not_ready_until_they_do() {
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
async fn what_is_not_there_is_told_in_json() {
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
async fn every_answer_is_named_and_counted() {
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
async fn the_interface_describes_itself() {
    let (status, document) = Fixture::new().await.get("/v1/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (StatusCode::OK, &json!("3.1.0")));
    for (path, _) in right() {
        assert!(document["paths"][path]["post"]["requestBody"].is_object(), "{path}");
    }
    let where_ = &document["components"]["schemas"]["Search"]["properties"]["where"];
    assert_ne!(*where_, Value::Null);
}
