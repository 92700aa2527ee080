//! `polylance serve` with clients of other projects.

use std::{fs, io::Write, net::TcpStream, path::Path, process::Command, thread, time::Duration};

use polylance_encoder::HeadKind;
use polylance_tests::{
    TestServer, embed_declaration, polylance, polylance_with, python, read_response, repository, write_head_model,
};
use serde_json::{Value, json};

const TOKEN: &str = "0123456789abcdef-0123456789abcdef";

fn table() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let table = embed_declaration(folder.path());
    (folder, table)
}

fn token_hash(token: &str) -> String {
    let hashed = polylance_with(&["serve", "--hash-token"], &[], format!("{token}\n").as_bytes()).exits_with(0);
    hashed.stdout.trim().to_owned()
}

/// The vectors of `polylance encode` for these lines under the table's contract.
fn encoded(table: &str, prefix: &str, texts: &[&str]) -> Vec<Value> {
    let shown = polylance(&["show", table, "--json"]).exits_with(0).json();
    let dtype = shown["contract"]["dtype"].as_str().unwrap();
    let lines = texts.join("\n");
    let encoded =
        polylance_with(&["encode", "--prefix", prefix, "--dtype", dtype], &[], lines.as_bytes()).exits_with(0);
    encoded.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["embedding"].clone()).collect()
}

/// Numbers as f32, the type they were computed in: JSON may write one f32 in several ways.
fn floats(vector: &Value) -> Vec<f32> {
    vector.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// A certificate for this machine and its key.
fn certificate(folder: &Path) -> (String, String) {
    let files = ["cert.pem", "key.pem"].map(|name| folder.join(name).display().to_string());
    let script = repository().join("tests/python/certificate.py");
    assert!(Command::new(python()).arg(script).args(&files).status().unwrap().success());
    let [certificate, key] = files;
    (certificate, key)
}

fn run_openai_client(url: &str, more: &[&str]) -> Value {
    let script = repository().join("tests/python/openai_client.py");
    let output = Command::new(python())
        .arg(script)
        .args([url, "multilingual-e5-small", "ça va?", "everyone has the right to rest"])
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn openai_client_gets_the_vectors_of_the_table() {
    let (_folder, table) = table();
    let hash = token_hash(TOKEN);
    let server = TestServer::start(&["--table", &format!("udhr={table}"), "--token-hash", &hash]);
    let answer = run_openai_client(&format!("http://{}", server.address), &["--token", TOKEN]);

    let texts = ["ça va?", "everyone has the right to rest"];
    for (prefix, names) in [("query: ", &["float", "base64", "default", "nulls"][..]), ("passage: ", &["passage"])] {
        let expected: Vec<_> = encoded(&table, prefix, &texts).iter().map(floats).collect();
        for name in names {
            let got: Vec<_> = answer[name].as_array().unwrap().iter().map(floats).collect();
            assert_eq!(got, expected, "{name}");
        }
    }
    let short = floats(&answer["short"][0]);
    let length: f32 = short.iter().map(|value| value * value).sum();
    assert!(short.len() == 8 && (length - 1.0).abs() < 1e-5, "{length}");
    assert_eq!(answer["ids"].as_array().unwrap().len(), 2);
    assert_eq!(answer["models"], json!(["multilingual-e5-small", "udhr"]));
    assert_eq!(answer["model"], "multilingual-e5-small");
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 10);
    let errors = &answer["errors"];
    assert_eq!(errors["model"], json!(["NotFoundError", 404, "model_not_found", "model"]));
    assert_eq!(errors["long"], json!(["BadRequestError", 400, "context_length_exceeded", "input"]));
    assert_eq!(errors["foreign"], json!(["BadRequestError", 400, "foreign_tokens", "input"]));
    assert_eq!(errors["none"], json!(["NotFoundError", 404, "model_not_found", "model"]));
    assert_eq!(errors["dimensions"], json!(["BadRequestError", 400, "invalid_dimensions", "dimensions"]));
    assert_eq!(errors["stranger"], json!(["AuthenticationError", 401, "unauthorized", null]));
}

#[test]
fn mcp_client_searches_and_reads_the_tables() {
    let (folder, table) = table();
    let hash = token_hash(TOKEN);
    let server = TestServer::start(&["--table", &format!("udhr={table}"), "--token-hash", &hash]);
    let script = repository().join("tests/python/mcp_client.py");
    let url = format!("http://{}", server.address);
    let output = Command::new(python()).arg(script).args([&url, "--token", TOKEN]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!answer.to_string().contains(folder.path().to_str().unwrap()), "{answer}");

    for way in ["handshake", "auto"] {
        let answer = &answer[way];
        assert_eq!((&answer["version"], &answer["server"]), (&json!("2025-11-25"), &json!("polylance")), "{way}");
        assert!(answer["instructions"].as_str().unwrap().contains("The tables are: udhr."), "{answer}");
        assert_eq!(answer["tools"], json!(["search", "sql", "document", "tables"]));
        assert_eq!(answer["read_only"], json!([true, true, true, true]));
        for tool in ["tables", "search", "document", "sql"] {
            assert_eq!(answer[tool]["error"], false, "{}", answer[tool]);
        }
        let body = json!({ "query": "everyone has the right to rest", "k": 3, "where": "lang = 'en'" });
        let expected = server.post("/v1/search", Some(TOKEN), &body.to_string()).json();
        let found = &answer["search"];
        assert_eq!(found["structured"]["hits"], expected["hits"]);
        assert!(found["text"].as_str().unwrap().starts_with("3 hits in the table udhr, hybrid search\n{"), "{found}");
        assert_eq!(answer["document"]["structured"]["doc_id"], expected["hits"][0]["row"]["doc_id"]);
        let rows = json!([{ "lang": "en", "n": 30 }, { "lang": "fr", "n": 30 }, { "lang": "ja", "n": 30 }]);
        assert_eq!(answer["sql"]["structured"]["rows"], rows);
        assert_eq!(answer["tables"]["structured"]["tables"][0]["rows"], 90);
        let errors = &answer["errors"];
        for (name, code) in [("condition", "invalid_filter"), ("delete", "read_only"), ("argument", "invalid_request")]
        {
            let error = (&errors[name]["error"], &errors[name]["structured"]["error"]["code"]);
            assert_eq!(error, (&json!(true), &json!(code)), "{errors}");
        }
        assert!(errors["condition"]["text"].as_str().unwrap().contains("\nhint: "), "{errors}");
        assert_eq!(errors["unknown"], -32602);
    }
    assert_eq!(answer["stranger"], "the request has no valid token");
}

fn run_flight_client(url: &str, more: &[&str]) -> Result<Value, String> {
    let script = repository().join("tests/python/flight_client.py");
    let output = Command::new(python()).arg(script).args([url, "udhr"]).args(more).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn adbc_reads_and_searches_tables_over_flight_sql() {
    let (folder, table) = table();
    let (certificate, key) = certificate(folder.path());
    let hash = token_hash(TOKEN);
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let arguments = ["--table", &format!("udhr={table}"), "--token-hash", &hash, "--flight", "127.0.0.1:0"];
    let server = TestServer::start(&[&arguments[..], &tls].concat());
    let url = server.flight.as_deref().unwrap();
    assert!(url.starts_with("grpc+tls://127.0.0.1:"), "{url}");

    let answer = run_flight_client(url, &["--ca", &certificate, "--token", TOKEN]).unwrap();
    assert_eq!((&answer["name"], &answer["tables"]), (&json!("polylance"), &json!(["udhr"])));
    assert_eq!(answer["types"], json!(["TABLE"]));
    assert!(answer["columns"].as_array().unwrap().contains(&json!("embedding")), "{answer}");
    assert_eq!(answer["counted"], json!([["en", 30], ["fr", 30], ["ja", 30]]));
    assert!(answer["hits"].as_array().unwrap().contains(&json!(["en", 26])), "{answer}");
    assert_eq!((&answer["vector"], &answer["empty"]), (&json!(384), &json!([0, ["doc_id", "text"]])));
    assert_eq!(answer["prepared"], json!([[[90]], [[90]]]));
    assert_eq!(answer["bound"], json!([[["fr", 26]], []]));
    let plan = answer["plan"].as_str().unwrap();
    assert!(plan.contains("LanceRead") && !plan.contains(folder.path().to_str().unwrap()), "{plan}");
    let errors = &answer["errors"];
    for name in ["nothing", "two"] {
        assert_eq!(errors[name][1], "INVALID_ARGUMENT", "{name}: {errors}");
    }
    for name in ["delete", "copy", "file", "boundless"] {
        assert_eq!(errors[name][1], "UNAUTHORIZED", "{name}: {errors}");
    }

    let by_password = run_flight_client(url, &["--ca", &certificate, "--password", TOKEN]).unwrap();
    assert_eq!(by_password["counted"], answer["counted"]);
    for stranger in [&["--token", "not-the-token-of-this"][..], &["--password", "not-the-token-of-this"], &[]] {
        let error = run_flight_client(url, &[&["--ca", &certificate], stranger].concat()).unwrap_err();
        assert!(error.contains("UNAUTHENTICATED"), "{stranger:?}: {error}");
    }

    // The server uses a new certificate in the same files without a restart; this client trusts only the new one.
    self::certificate(folder.path());
    let renewed = (0..60).find_map(|_| {
        thread::sleep(Duration::from_secs(1));
        run_flight_client(url, &["--ca", &certificate, "--token", TOKEN]).ok()
    });
    assert_eq!(renewed.expect("the new certificate is read within a minute")["counted"], answer["counted"]);
}

#[test]
fn reranked_hits_are_ordered_by_cross_encoder_score() {
    let (folder, table) = table();
    let model = folder.path().join("ranks");
    write_head_model(&model, HeadKind::SequenceClassification, &["relevance"]);
    let model = model.display().to_string();
    let query = "derecho a la educación";
    let search = |more: &[&str]| {
        let args = ["search", "--table", &table, query, "--mode", "vector", "--json"];
        polylance(&[&args[..], more].concat()).exits_with(0).json().as_array().unwrap().clone()
    };
    // The scores of the candidates by `predict`.
    let candidates = search(&["-k", "30"]);
    let passages: Vec<_> = candidates.iter().map(|hit| hit["text"].clone()).collect();
    let line = format!("{}\n", json!({ "query": query, "passages": passages }));
    let scores =
        polylance_with(&["predict", "--task", "rerank", "--model", &model], &[], line.as_bytes()).exits_with(0);
    let scores = scores.json()["scores"].clone();
    let mut expected: Vec<_> = floats(&scores).into_iter().zip(candidates.iter().map(|hit| &hit["doc_id"])).collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    expected.truncate(5);
    assert!(expected[0].0 > expected[4].0, "{expected:?}");

    let by_command = search(&["-k", "5", "--rerank", &model]);
    let server = TestServer::start(&["--table", &table, "--reranker", &model]);
    let body = json!({ "query": query, "mode": "vector", "k": 5, "rerank": true }).to_string();
    let by_server = server.post("/v1/search", None, &body).json()["hits"].clone();
    for (at, (score, doc_id)) in expected.into_iter().enumerate() {
        let (command, server) = (&by_command[at], &by_server[at]);
        assert_eq!((&command["doc_id"], &server["row"]["doc_id"]), (doc_id, doc_id), "{at}");
        let scores = json!([command["rerank_score"], server["rerank"]["score"]]);
        assert!(floats(&scores).iter().all(|found| (found - score).abs() < 1e-5), "{at}: {scores}, {score}");
    }
}

#[test]
fn http_search_returns_the_hits_of_the_command() {
    let (_folder, table) = table();
    let mut server = TestServer::start(&["--table", &table]);
    for (query, article) in [("nadie será sometido a torturas", 5), ("教育を受ける権利", 26)] {
        let command = polylance(&["search", "--table", &table, query, "-k", "3", "--json"]).exits_with(0).json();
        let body = json!({ "query": query, "k": 3 }).to_string();
        let hits = server.post("/v1/search", None, &body).json()["hits"].clone();
        for at in 0..3 {
            let row = &hits[at]["row"];
            assert_eq!((&row["doc_id"], &row["chunk"]), (&command[at]["doc_id"], &command[at]["chunk"]), "{query}");
        }
        assert_eq!(hits[0]["row"]["article"], article, "{query}");
    }
    let sql = "SELECT lang FROM hybrid_search('udhr', 'slavery', 3) GROUP BY 1";
    let answer = server.post("/v1/sql", None, &json!({ "sql": sql }).to_string()).json();
    assert!(!answer["rows"].as_array().unwrap().is_empty(), "{answer}");
    assert_eq!(server.get("/readyz", None).json(), json!({ "status": "ready" }));
    let listed = server.get("/v1/tables", None).json();
    assert_eq!((&listed["tables"][0]["name"], &listed["tables"][0]["text_index"]), (&json!("udhr"), &json!(true)));
    assert_eq!(server.get("/", None).status, 200);

    let (code, stderr) = server.stop("TERM");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("udhr  ") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn server_finds_new_rows_without_a_restart() {
    let (_folder, table) = table();
    let server = TestServer::start(&["--table", &format!("udhr={table}"), "--follow", "0.2"]);
    let count = || {
        let answer = server.post("/v1/sql", None, r#"{"sql": "SELECT DISTINCT lang FROM udhr"}"#).json();
        answer["rows"].as_array().unwrap().len()
    };
    assert_eq!(count(), 3);
    let more = ["embed", "--source", "builtin:udhr?codes=deu_1996", "--table", &table, "--keep", "lang,article"];
    let _ = polylance(&more).exits_with(0);
    while count() != 4 {
        thread::sleep(Duration::from_millis(100));
    }
    let found =
        server.post("/v1/search", None, r#"{"query": "Recht auf Bildung", "where": "lang = 'de-1996'"}"#).json();
    assert_eq!(found["hits"][0]["row"]["article"], 26, "{found}");
}

#[test]
fn running_requests_are_answered_before_shutdown() {
    let (_folder, table) = table();
    let mut server = TestServer::start(&["--table", &table]);
    let body = br#"{"query": "rest"}"#;
    let head = format!(
        "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body[..3]).unwrap();
    // When the server answers a second request, it has read the head of the first.
    assert_eq!(server.get("/healthz", None).status, 200);
    let request = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        stream.write_all(&body[3..]).unwrap();
        read_response(stream)
    });
    let (code, stderr) = server.stop("TERM");
    let answer = request.join().unwrap();
    assert_eq!((code, answer.status), (Some(0), 200), "{stderr}\n{}", answer.text);
}

#[test]
fn server_with_a_certificate_speaks_https() {
    let (folder, table) = table();
    let (certificate, key) = certificate(folder.path());
    let server = TestServer::start(&["--table", &table, "--tls-cert", &certificate, "--tls-key", &key]);
    let answer = run_openai_client(&format!("https://{}", server.address), &["--ca", &certificate]);
    assert_eq!(answer["float"].as_array().unwrap().len(), 2);
    assert_eq!(answer["errors"]["stranger"][0], "nothing");
    // An unencrypted request gets no response.
    assert_eq!(server.get("/healthz", None).status, 0);
}

#[test]
fn unsafe_server_options_are_refused() {
    for port in ["--listen", "--flight"] {
        let open = polylance(&["serve", "--table", "none.lance", port, "0.0.0.0:0"]).exits_with(2);
        let _ = open.stderr_contains(&["there is no token", "hint: give --token-hash"]);
    }
    let missing = polylance(&["serve", "--table", "none.lance", "--listen", "127.0.0.1:0"]).exits_with(2);
    let _ = missing.stderr_contains(&["no table at none.lance"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hashes");
    fs::write(&file, "# nobody\n").unwrap();
    let empty = polylance(&["serve", "--table", "none.lance", "--token-file", file.to_str().unwrap()]).exits_with(2);
    let _ = empty.stderr_contains(&["has no hash of a token"]);
    let short = polylance_with(&["serve", "--hash-token"], &[], b"secret\n").exits_with(2);
    let _ = short.stderr_contains(&["at least 16 characters"]);
    assert_eq!(token_hash(TOKEN).len(), 64);
    let nothing = polylance(&["serve"]).exits_with(2);
    let _ = nothing.stderr_contains(&["--table"]);
}
