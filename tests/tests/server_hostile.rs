//! Hostile requests, while other clients get normal responses.

mod attacks;

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use attacks::{TOKEN, attacks};
use polylance_tests::{Response, TestServer, embed_declaration, polylance_with, repository};
use serde_json::json;

const HONEST_CLIENTS: usize = 20;
const HOSTILE_CLIENTS: usize = 6;

#[test]
fn hostile_requests_are_refused_while_normal_ones_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let table = embed_declaration(folder.path());
    let hashed = polylance_with(&["serve", "--hash-token"], &[], TOKEN.as_bytes()).exits_with(0);
    let named = format!("udhr={table}");
    let timeouts = ["--header-timeout", "2", "--body-timeout", "2", "--timeout", "10"];
    let mut server =
        TestServer::start(&[&["--table", &named, "--token-hash", hashed.stdout.trim()], &timeouts[..]].concat());
    let secrets = [
        folder.path().display().to_string(),
        folder.path().display().to_string().trim_start_matches('/').to_owned(),
        repository().display().to_string(),
        std::env::var("HOME").unwrap(),
        ".cargo".to_owned(),
    ];
    let assert_no_secrets = |what: &str, answer: &Response| {
        for secret in &secrets {
            assert!(!answer.text.contains(secret), "{secret} in the answer to {what}:\n{}", answer.text);
        }
    };

    let honest_requests = honest_requests(&server);
    let (ended, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let attacks = attacks();
    assert!(attacks.len() >= 200, "{}", attacks.len());
    let attacks = Mutex::new(VecDeque::from(attacks));
    thread::scope(|scope| {
        let honest: Vec<_> = (0..HONEST_CLIENTS)
            .map(|at| {
                let (server, honest_requests, ended, answered) = (&server, &honest_requests, &ended, &answered);
                scope.spawn(move || {
                    let mut own = 0;
                    while own == 0 || !ended.load(Ordering::Relaxed) {
                        let (route, body, expected) = &honest_requests[(at + own) % honest_requests.len()];
                        let mut answer = server.post(route, Some(TOKEN), body);
                        // Hostile statements take some of the few slots: a 503 states when to retry.
                        while *route == "/v1/sql" && answer.status == 503 {
                            assert!(answer.text.contains("retry-after: 1"), "{}", answer.text);
                            thread::sleep(Duration::from_secs(1));
                            answer = server.post(route, Some(TOKEN), body);
                        }
                        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
                        assert_eq!(&without_duration(&answer), expected, "{body}");
                        own += 1;
                        answered.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(200));
                    }
                })
            })
            .collect();
        let hostile: Vec<_> = (0..HOSTILE_CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(attack) = { attacks.lock().unwrap().pop_front() } {
                        let (what, answer) = attack.run(&server);
                        assert!(attack.is_refused_cleanly(&answer), "{what}:\n{}", answer.text);
                        assert_no_secrets(&what, &answer);
                    }
                })
            })
            .collect();
        let hostile: Vec<_> = hostile.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::Relaxed);
        let honest: Vec<_> = honest.into_iter().map(thread::ScopedJoinHandle::join).collect();
        for ended in hostile.into_iter().chain(honest) {
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    assert!(answered.load(Ordering::Relaxed) >= HONEST_CLIENTS);

    // These are valid and describe the tables, but must not reveal where they are stored.
    for sql in [
        "EXPLAIN VERBOSE SELECT * FROM udhr WHERE lang = 'en'",
        "EXPLAIN ANALYZE SELECT count(*) FROM udhr",
        "SHOW ALL",
        "SHOW TABLES",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM information_schema.tables",
    ] {
        let answer = server.post("/v1/sql", Some(TOKEN), &json!({ "sql": sql }).to_string());
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text);
        assert_no_secrets(sql, &answer);
    }
    let (code, stderr) = server.stop("TERM");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Requests with the responses of an idle server.
fn honest_requests(server: &TestServer) -> Vec<(&'static str, String, String)> {
    let requests = [
        ("/v1/search", json!({ "query": "no one shall be held in slavery", "k": 3 })),
        ("/v1/search", json!({ "query": "教育を受ける権利", "k": 5, "where": "lang = 'ja'" })),
        ("/v1/search", json!({ "query": "torture", "mode": "text" })),
        ("/v1/search", json!({ "query": "le droit au repos", "mode": "vector", "by_document": true })),
        ("/v1/sql", json!({ "sql": "SELECT lang, count(*) AS n FROM udhr GROUP BY lang ORDER BY lang" })),
        ("/v1/embeddings", json!({ "input": "everyone has the right to rest" })),
    ];
    let ask = |(route, body): (&'static str, serde_json::Value)| {
        let body = body.to_string();
        let answer = server.post(route, Some(TOKEN), &body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        (route, body, without_duration(&answer))
    };
    requests.map(ask).into()
}

/// The response without its duration.
fn without_duration(answer: &Response) -> String {
    let mut response = answer.json();
    response.as_object_mut().unwrap().remove("took_ms");
    response.to_string()
}
