//! Requests that mean no good, while others go on with their work.

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
use polylance_tests::{Answer, Served, declaration, polylance_with, repository};
use serde_json::json;

const HONEST: usize = 20;
const HOSTILE: usize = 6;

#[test]
fn hostile_requests_are_refused_while_normal_ones_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let table = declaration(folder.path());
    let hashed = polylance_with(&["serve", "--hash-token"], &[], TOKEN.as_bytes()).exits_with(0);
    let named = format!("udhr={table}");
    let patience = ["--header-timeout", "2", "--body-timeout", "2", "--timeout", "10"];
    let mut server =
        Served::start(&[&["--table", &named, "--token-hash", hashed.stdout.trim()], &patience[..]].concat());
    let secrets = [
        folder.path().display().to_string(),
        folder.path().display().to_string().trim_start_matches('/').to_owned(),
        repository().display().to_string(),
        std::env::var("HOME").unwrap(),
        ".cargo".to_owned(),
    ];
    let clean = |what: &str, answer: &Answer| {
        for secret in &secrets {
            assert!(!answer.text.contains(secret), "{secret} in the answer to {what}:\n{}", answer.text);
        }
    };

    let questions = questions(&server);
    let (ended, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let attacks = attacks();
    assert!(attacks.len() >= 200, "{}", attacks.len());
    let attacks = Mutex::new(VecDeque::from(attacks));
    thread::scope(|scope| {
        let honest: Vec<_> = (0..HONEST)
            .map(|at| {
                let (server, questions, ended, answered) = (&server, &questions, &ended, &answered);
                scope.spawn(move || {
                    let mut own = 0;
                    while own == 0 || !ended.load(Ordering::Relaxed) {
                        let (route, body, expected) = &questions[(at + own) % questions.len()];
                        let mut answer = server.post(route, Some(TOKEN), body);
                        // Statements have a few places, of which hostile ones take some: it says when to come again.
                        while *route == "/v1/sql" && answer.status == 503 {
                            assert!(answer.text.contains("retry-after: 1"), "{}", answer.text);
                            thread::sleep(Duration::from_secs(1));
                            answer = server.post(route, Some(TOKEN), body);
                        }
                        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
                        assert_eq!(&told(&answer), expected, "{body}");
                        own += 1;
                        answered.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(200));
                    }
                })
            })
            .collect();
        let hostile: Vec<_> = (0..HOSTILE)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(attack) = { attacks.lock().unwrap().pop_front() } {
                        let (what, answer) = attack.run(&server);
                        assert!(attack.is_repelled(&answer), "{what}:\n{}", answer.text);
                        clean(&what, &answer);
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
    assert!(answered.load(Ordering::Relaxed) >= HONEST);

    // Nothing is wrong with these, and they tell of the tables without telling where they are.
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
        clean(sql, &answer);
    }
    let (code, said) = server.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// Requests with the answers that a quiet server gives.
fn questions(server: &Served) -> Vec<(&'static str, String, String)> {
    let asked = [
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
        (route, body, told(&answer))
    };
    asked.map(ask).into()
}

/// The answer without the time that it took.
fn told(answer: &Answer) -> String {
    let mut told = answer.json();
    told.as_object_mut().unwrap().remove("took_ms");
    told.to_string()
}
