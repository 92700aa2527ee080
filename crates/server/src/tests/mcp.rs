//! `/mcp`.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use serde_json::{Value, json};

use super::{Fixture, TOKEN};
use crate::{Limits, TokenHash};

const MCP: &str = "/mcp";
const VERSION: &str = "mcp-protocol-version";

fn message(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

fn post() -> axum::http::request::Builder {
    Request::post(MCP).header(header::CONTENT_TYPE, "application/json")
}

async fn send(server: &Fixture, version: &str, body: &Value) -> (StatusCode, String) {
    let request = post().header(VERSION, version).body(Body::from(body.to_string())).unwrap();
    let (status, _, text) = server.send(request).await;
    (status, text)
}

/// The result of a request that must succeed.
async fn result(server: &Fixture, method: &str, params: Value) -> Value {
    let (status, mut reply) = server.post(MCP, message(method, params)).await;
    assert_eq!((status, &reply["jsonrpc"], &reply["id"]), (StatusCode::OK, &json!("2.0"), &json!(7)), "{reply}");
    assert!(reply.get("error").is_none(), "{reply}");
    reply["result"].take()
}

/// The error code of a request that must be refused.
async fn error_code(server: &Fixture, body: &str) -> (u16, i64) {
    let request = post().body(Body::from(body.to_owned())).unwrap();
    let (status, _, text) = server.send(request).await;
    let reply: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    assert!(reply.get("result").is_none(), "{reply}");
    (status.as_u16(), reply["error"]["code"].as_i64().unwrap_or_else(|| panic!("{reply}")))
}

async fn call(server: &Fixture, tool: &str, arguments: Value) -> Value {
    result(server, "tools/call", json!({ "name": tool, "arguments": arguments })).await
}

fn text(result: &Value) -> &str {
    assert_eq!(result["content"].as_array().map(Vec::len), Some(1), "{result}");
    result["content"][0]["text"].as_str().unwrap()
}

fn without_duration(mut response: Value) -> Value {
    response.as_object_mut().unwrap().remove("took_ms");
    response
}

#[tokio::test]
async fn initialize_negotiates_the_revision() {
    let server = Fixture::new().await;
    for (requested, negotiated) in [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
    ] {
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": requested, "capabilities": {}, "clientInfo": client });
        let answer = result(&server, "initialize", params.clone()).await;
        assert_eq!(answer["protocolVersion"], negotiated, "{requested}");
        assert_eq!(
            (&answer["capabilities"], &answer["serverInfo"]["name"]),
            (&json!({ "tools": {} }), &json!("polylance"))
        );
        assert!(answer["instructions"].as_str().unwrap().ends_with("The tables are: docs."), "{answer}");
        // The header is for requests after this one.
        let (status, reply) = send(&server, requested, &message("initialize", params)).await;
        assert!(status == StatusCode::OK && reply.contains(negotiated), "{reply}");
    }
    assert_eq!(error_code(&server, &message("initialize", json!({})).to_string()).await, (200, -32602));
}

#[tokio::test]
async fn notifications_and_responses_are_accepted_without_a_body() {
    let server = Fixture::new().await;
    for body in [
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } }),
        json!({ "jsonrpc": "2.0", "id": 1, "result": {} }),
    ] {
        assert_eq!(send(&server, "2025-06-18", &body).await, (StatusCode::ACCEPTED, String::new()), "{body}");
    }
    assert_eq!(result(&server, "ping", json!({})).await, json!({}));
    let (_, reply) = server.post(MCP, json!({ "jsonrpc": "2.0", "id": "a", "method": "ping" })).await;
    assert_eq!(reply, json!({ "jsonrpc": "2.0", "id": "a", "result": {} }));
}

#[tokio::test]
async fn tools_are_listed_with_the_parameters_of_the_routes() {
    let server = Fixture::new().await;
    let listed = result(&server, "tools/list", json!({})).await;
    let tools = listed["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["search", "sql", "document", "tables"]);
    assert!(!listed.to_string().contains("$ref"), "{listed}");
    for tool in tools {
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool}");
        assert_eq!(tool["annotations"]["idempotentHint"], true, "{tool}");
        assert_eq!(
            (&tool["inputSchema"]["type"], &tool["inputSchema"]["additionalProperties"]),
            (&json!("object"), &json!(false))
        );
        assert!(tool["description"].as_str().unwrap().len() > 100, "{tool}");
    }
    let (_, openapi) = server.get("/v1/openapi.json").await;
    for (at, name) in [(0, "SearchParams"), (1, "SqlRequest")] {
        let names = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&tools[at]["inputSchema"]), names(&openapi["components"]["schemas"][name]), "{name}");
    }
    assert_eq!(tools[2]["inputSchema"]["required"], json!(["doc_id"]));
    assert!(openapi["paths"][MCP]["post"]["summary"].is_string());
}

#[tokio::test]
async fn a_tool_returns_the_response_of_its_route() {
    let server = Fixture::new().await;
    let search = json!({ "query": "everyone has the right to life", "k": 2, "where": "lang = 'eng'", "rerank": null });
    let sql = json!({ "sql": "SELECT lang, count(*) AS n FROM docs GROUP BY 1 ORDER BY 2 DESC, 1" });
    let (_, document) = server.get("/v1/tables/docs/documents/long%2Fone").await;
    let (_, tables) = server.get("/v1/tables").await;
    for (tool, arguments, expected, summary) in [
        ("search", search.clone(), server.ok("/v1/search", search).await, "2 hits in the table docs, hybrid search"),
        ("sql", sql.clone(), server.ok("/v1/sql", sql).await, "3 rows"),
        ("document", json!({ "doc_id": "long/one" }), document, "2 chunks of the document long/one"),
        ("tables", json!({}), tables, "1 table"),
    ] {
        let result = call(&server, tool, arguments).await;
        assert_eq!((&result["isError"], &result["content"][0]["type"]), (&json!(false), &json!("text")), "{result}");
        assert_eq!(without_duration(result["structuredContent"].clone()), without_duration(expected), "{tool}");
        let mut lines = text(&result).lines();
        assert_eq!(lines.next(), Some(summary), "{tool}");
        for line in lines {
            assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{line}");
        }
    }
    let found =
        call(&server, "search", json!({ "query": "everyone has the right to life", "columns": ["doc_id"] })).await;
    let first: Value = serde_json::from_str(text(&found).lines().nth(1).unwrap()).unwrap();
    assert_eq!((&first["rank"], &first["row"]), (&json!(1), &json!({ "doc_id": "d1" })));
    // Arguments may be left out where all are optional.
    let tables = result(&server, "tools/call", json!({ "name": "tables" })).await;
    assert_eq!(tables["isError"], false);
}

#[tokio::test]
async fn an_error_of_a_tool_is_the_error_of_its_route() {
    let server = Fixture::new().await;
    for (tool, path, arguments) in [
        ("search", "/v1/search", json!({})),
        ("search", "/v1/search", json!({ "query": "a", "table": "other" })),
        ("search", "/v1/search", json!({ "query": "a", "k": 100_000 })),
        ("search", "/v1/search", json!({ "query": "a", "where": "nothing = 1" })),
        ("search", "/v1/search", json!({ "query": "a", "columns": ["embedding"] })),
        ("search", "/v1/search", json!({ "query": "a", "nprobes": 1_000_000 })),
        ("sql", "/v1/sql", json!({ "sql": "DELETE FROM docs" })),
        ("sql", "/v1/sql", json!({ "sql": "SELECT repeat('x', 10)" })),
        ("sql", "/v1/sql", json!({ "sql": "SELECT * FROM '/etc/passwd'" })),
        ("sql", "/v1/sql", json!({ "sql": "SELECT 1; SELECT 2" })),
        ("sql", "/v1/sql", json!({ "sql": format!("SELECT '{}'", "x".repeat(20_000)) })),
    ] {
        let (_, expected) = server.post(path, arguments.clone()).await;
        let error = call(&server, tool, arguments.clone()).await;
        assert_eq!((&error["isError"], &error["structuredContent"]), (&json!(true), &expected), "{arguments}");
        let hint = expected["error"]["hint"].as_str().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        let expected = format!("{}{hint}", expected["error"]["message"].as_str().unwrap());
        assert_eq!(text(&error), expected, "{arguments}");
    }
    for (tool, arguments, code) in [
        ("document", json!({ "doc_id": "nobody" }), "no_document"),
        ("document", json!({ "doc_id": "d0", "table": "other" }), "no_table"),
        ("document", json!({}), "invalid_request"),
        ("document", json!([]), "invalid_request"),
        ("search", json!({ "query": "a", "unknown": 1 }), "invalid_request"),
        ("search", json!({ "query": 1 }), "invalid_request"),
        ("tables", json!({ "table": "docs" }), "invalid_request"),
    ] {
        let error = call(&server, tool, arguments.clone()).await;
        assert_eq!(
            (&error["isError"], &error["structuredContent"]["error"]["code"]),
            (&json!(true), &json!(code)),
            "{arguments}"
        );
    }
}

#[tokio::test]
async fn the_limits_of_the_routes_apply_to_tools() {
    let server = Fixture::with(Limits { max_rows: 300, max_hits: 2, ..Limits::default() }, Vec::new()).await;
    let rows = call(&server, "sql", json!({ "sql": "SELECT * FROM generate_series(1, 1000000000000)" })).await;
    let structured = &rows["structuredContent"];
    assert_eq!((structured["rows"].as_array().unwrap().len(), &structured["truncated"]), (300, &json!(true)));
    assert!(text(&rows).starts_with("300 rows (truncated: the result has more)\n{\"value\":1}\n"), "{rows}");
    let error = call(&server, "search", json!({ "query": "right", "k": 3 })).await;
    assert_eq!(error["structuredContent"]["error"]["code"], "too_many_hits");

    let server =
        Fixture::with(Limits { request_timeout: Duration::from_millis(1), ..Limits::default() }, Vec::new()).await;
    let long = "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b";
    let error = call(&server, "sql", json!({ "sql": long })).await;
    assert_eq!(error["structuredContent"]["error"]["code"], "too_slow");

    let none = Limits { max_requests: 0, queue_timeout: Duration::ZERO, ..Limits::default() };
    let error = call(&Fixture::with(none, Vec::new()).await, "search", json!({ "query": "right" })).await;
    assert_eq!(error["structuredContent"]["error"]["code"], "busy");
}

#[tokio::test]
async fn plans_from_the_sql_tool_do_not_reveal_where_the_tables_are() {
    let server = Fixture::new().await;
    // The fixture checks every response for the folder's path.
    for sql in ["EXPLAIN VERBOSE SELECT * FROM docs", "SHOW ALL", "SELECT * FROM information_schema.tables"] {
        let answer = call(&server, "sql", json!({ "sql": sql })).await;
        assert!(answer["isError"] == false && !answer.to_string().contains("docs.lance"), "{answer}");
    }
}

#[tokio::test]
async fn protocol_errors_have_their_json_rpc_codes() {
    let server = Fixture::new().await;
    for (method, params, code) in [
        ("tools/call", json!({ "name": "delete", "arguments": {} }), -32602),
        ("tools/call", json!({}), -32602),
        ("tools/call", json!(["tables", {}]), -32602),
        ("tools/list", json!({ "cursor": "2" }), -32602),
        ("resources/list", json!({}), -32601),
        ("server/discover", json!({}), -32601),
        ("", json!({}), -32601),
    ] {
        let body = message(method, params).to_string();
        assert_eq!(error_code(&server, &body).await, (200, code), "{body}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, code) in [
        ("", -32700),
        ("{", -32700),
        ("\u{0}", -32700),
        (r#"{"jsonrpc":"2.0"} {}"#, -32700),
        ("{}", -32600),
        ("null", -32600),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
    ] {
        assert_eq!(error_code(&server, body).await, (400, code), "{body}");
    }
    let (status, _, reply) = server.send(post().body(Body::from(nested.clone())).unwrap()).await;
    assert!(status == StatusCode::OK && reply.contains("-32600"), "{reply}");
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{nested}}}"#);
    assert_eq!(error_code(&server, &deep).await, (200, -32602));
    let arguments = format!(r#"{{"name":"search","arguments":{{"vector":{nested}}}}}"#);
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{arguments}}}"#);
    let (status, _, reply) = server.send(post().body(Body::from(deep)).unwrap()).await;
    assert!(status == StatusCode::OK && reply.contains("invalid_request"), "{reply}");
}

#[tokio::test]
async fn a_revision_that_is_not_supported_is_refused_with_those_that_are() {
    let server = Fixture::new().await;
    let ping = message("ping", json!({}));
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        assert_eq!(send(&server, version, &ping).await.0, StatusCode::OK, "{version}");
    }
    for version in ["2026-07-28", "2024-11-05", "1", ""] {
        for body in [&ping, &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })] {
            let (status, text) = send(&server, version, body).await;
            let reply: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((status, &reply["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32022)), "{version}");
            let supported = json!(["2025-11-25", "2025-06-18", "2025-03-26"]);
            assert_eq!(reply["error"]["data"], json!({ "supported": supported, "requested": version }));
            assert_eq!(reply["id"], body.get("id").cloned().unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn only_the_first_revision_has_batches() {
    let server = Fixture::new().await;
    let ping = message("ping", json!({}));
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let tables = message("tools/call", json!({ "name": "tables" }));
    let batch =
        json!([ping, notification, {}, tables, message("initialize", json!({ "protocolVersion": "2025-03-26" }))]);
    let (status, replies) = server.post(MCP, batch.clone()).await;
    let replies = replies.as_array().unwrap();
    assert_eq!((status, replies.len()), (StatusCode::OK, 4));
    assert_eq!(replies[0]["result"], json!({}));
    assert_eq!((&replies[1]["id"], &replies[1]["error"]["code"]), (&Value::Null, &json!(-32600)));
    assert_eq!(replies[2]["result"]["isError"], false);
    assert_eq!((&replies[3]["id"], &replies[3]["error"]["code"]), (&json!(7), &json!(-32600)));
    assert_eq!(send(&server, "2025-03-26", &json!([notification])).await, (StatusCode::ACCEPTED, String::new()));
    for version in ["2025-06-18", "2025-11-25"] {
        let (status, text) = send(&server, version, &batch).await;
        assert!(status == StatusCode::BAD_REQUEST && text.contains("-32600"), "{version}: {text}");
    }
    let many = Value::from(vec![ping.clone(); 17]);
    assert_eq!(error_code(&server, &many.to_string()).await, (400, -32600));
    // All messages together have the time and the bytes of one request.
    for limits in [
        Limits { request_timeout: Duration::ZERO, ..Limits::default() },
        Limits { max_response_bytes: 0, ..Limits::default() },
    ] {
        let server = Fixture::with(limits, Vec::new()).await;
        let (_, replies) = server.post(MCP, json!([ping, tables])).await;
        assert_eq!(replies[1]["error"]["data"]["code"], "too_large", "{replies}");
    }
}

/// The status, the headers and the JSON-RPC error of a request that a layer before the route must refuse.
async fn refused(server: &Fixture, request: Request<Body>) -> (u16, HeaderMap, Value) {
    let (status, headers, text) = server.send(request).await;
    let reply: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    assert_eq!(
        (&reply["jsonrpc"], &reply["id"], &reply["error"]["code"]),
        (&json!("2.0"), &Value::Null, &json!(-32000))
    );
    (status.as_u16(), headers, reply["error"].clone())
}

#[tokio::test]
async fn a_token_is_required_as_on_other_routes() {
    let server = Fixture::with(Limits::default(), vec![TokenHash::of(TOKEN).unwrap()]).await;
    let ping = || Body::from(message("ping", json!({})).to_string());
    for authorization in ["", "Bearer wrong-wrong-wrong"] {
        let request = post().header(header::AUTHORIZATION, authorization).body(ping()).unwrap();
        let (status, headers, error) = refused(&server, request).await;
        assert_eq!((status, &headers[header::WWW_AUTHENTICATE]), (401, &"Bearer".parse().unwrap()));
        let hint = "send the header `Authorization: Bearer TOKEN`";
        assert_eq!(error["data"], json!({ "code": "unauthorized", "hint": hint }));
    }
    let request = post().header(header::AUTHORIZATION, format!("Bearer {TOKEN}")).body(ping()).unwrap();
    assert_eq!(server.send(request).await.0, StatusCode::OK);
}

#[tokio::test]
async fn requests_of_other_hosts_and_pages_are_refused() {
    let server = Fixture::new().await;
    let request = |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(post(), |request, (name, value)| request.header(*name, *value));
        request.body(Body::from(message("ping", json!({})).to_string())).unwrap()
    };
    for headers in [
        &[("host", "evil.example")][..],
        &[("host", "localhost:8000"), ("origin", "http://evil.example")],
        &[("host", "localhost:8000"), ("origin", "http://localhost:3000")],
        &[("host", "localhost:8000"), ("origin", "null")],
        &[("host", "localhost:8000"), ("sec-fetch-site", "cross-site")],
    ] {
        let (status, _, error) = refused(&server, request(headers)).await;
        let code = error["data"]["code"].as_str().unwrap();
        assert!(status == 403 && code.starts_with("foreign_"), "{headers:?}: {error}");
    }
    for headers in
        [&[("host", "localhost:8000")][..], &[("host", "localhost:8000"), ("origin", "http://localhost:8000")]]
    {
        assert_eq!(server.send(request(headers)).await.0, StatusCode::OK, "{headers:?}");
    }
}

#[tokio::test]
async fn there_is_no_stream_and_no_session() {
    let server = Fixture::new().await;
    for method in [Method::GET, Method::DELETE, Method::PUT] {
        let request = Request::builder().method(method.clone()).uri(MCP).body(Body::empty()).unwrap();
        let (status, headers, error) = refused(&server, request).await;
        assert_eq!((status, &headers[header::ALLOW]), (405, &"POST".parse().unwrap()), "{method}");
        assert_eq!(error["data"]["code"], "method_not_allowed");
    }
    let request =
        post().header(VERSION, "2025-06-18").body(Body::from(message("ping", json!({})).to_string())).unwrap();
    assert!(!server.send(request).await.1.contains_key("mcp-session-id"));
    let (status, error) = server.get("/mcp/").await;
    assert!(status == StatusCode::NOT_FOUND && error["error"]["hint"].as_str().unwrap().contains("/mcp"), "{error}");
}

#[tokio::test]
async fn bodies_are_json_within_the_size_limit() {
    let server = Fixture::new().await;
    let ping = message("ping", json!({})).to_string();
    let request = Request::post(MCP).header(header::CONTENT_TYPE, "text/plain").body(Body::from(ping)).unwrap();
    assert_eq!(refused(&server, request).await.0, 415);
    let large = message("ping", json!({ "x": "x".repeat(2 << 20) })).to_string();
    let (status, _, error) = refused(&server, post().body(Body::from(large)).unwrap()).await;
    assert_eq!((status, &error["data"]["code"]), (413, &json!("body_too_large")));
}

#[tokio::test]
async fn calls_are_counted_by_tool_and_error() {
    let server = Fixture::new().await;
    let _found = call(&server, "search", json!({ "query": "right" })).await;
    let _refused = call(&server, "search", json!({})).await;
    let (_, _, text) = server.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    for line in [
        r#"polylance_http_requests_total{method="POST",route="/mcp",status="200"} 2"#,
        r#"polylance_mcp_calls_total{code="ok",tool="search"} 1"#,
        r#"polylance_mcp_calls_total{code="invalid_query",tool="search"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
}
