//! `/v1/sql`.

use serde_json::json;

use super::Fixture;
use crate::Limits;

const SQL: &str = "/v1/sql";

#[tokio::test]
async fn rows_come_with_their_types() {
    let server = Fixture::new().await;
    let answer =
        server.ok(SQL, json!({ "sql": "SELECT lang, count(*) AS n FROM docs GROUP BY 1 ORDER BY 2 DESC, 1" })).await;
    assert_eq!(answer["columns"], json!([{ "name": "lang", "type": "Utf8" }, { "name": "n", "type": "Int64" }]));
    assert_eq!(answer["rows"][0], json!({ "lang": "eng", "n": 4 }));
    assert_eq!((&answer["truncated"], answer["rows"].as_array().unwrap().len()), (&json!(false), 3));
    let answer = server.ok(SQL, json!({ "sql": "SELECT doc_id, bm25 FROM text_search('docs', 'right', 2)" })).await;
    assert_eq!(answer["rows"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn more_rows_than_allowed_are_cut_and_marked_as_truncated() {
    let server = Fixture::with(Limits { max_rows: 300, ..Limits::default() }, Vec::new()).await;
    let series = |n| json!({ "sql": format!("SELECT * FROM generate_series(1, {n})") });
    for (n, rows, truncated) in
        [(299, 299, false), (300, 300, false), (301, 300, true), (1_000_000_000_000_u64, 300, true)]
    {
        let answer = server.ok(SQL, series(n)).await;
        assert_eq!((answer["rows"].as_array().unwrap().len(), &answer["truncated"]), (rows, &json!(truncated)), "{n}");
    }
    let server = Fixture::with(Limits { max_response_bytes: 100, ..Limits::default() }, Vec::new()).await;
    let answer = server.ok(SQL, series(299)).await;
    assert_eq!(answer["truncated"], true);
    assert!(answer["rows"].to_string().len() < 120);
}

#[tokio::test]
async fn plans_and_settings_do_not_reveal_where_the_tables_are() {
    let server = Fixture::new().await;
    // The fixture checks every response for the folder's path.
    for sql in [
        "EXPLAIN SELECT * FROM docs WHERE lang = 'eng'",
        "EXPLAIN VERBOSE SELECT * FROM docs",
        "EXPLAIN ANALYZE SELECT count(*) FROM docs",
        "EXPLAIN FORMAT TREE SELECT * FROM docs",
        "SHOW TABLES",
        "SHOW ALL",
        "DESCRIBE docs",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM information_schema.views",
    ] {
        let answer = server.ok(SQL, json!({ "sql": sql })).await;
        assert!(!answer["rows"].to_string().contains("docs.lance"), "{answer}");
    }
    let plan = server.ok(SQL, json!({ "sql": "EXPLAIN SELECT * FROM docs" })).await;
    assert!(plan["rows"].to_string().contains("docs"), "{plan}");
}

#[tokio::test]
async fn only_queries_over_the_tables_are_allowed() {
    let server = Fixture::new().await;
    for (sql, status, code) in [
        ("DELETE FROM docs", 403, "read_only"),
        ("INSERT INTO docs SELECT * FROM docs", 403, "read_only"),
        ("UPDATE docs SET lang = 'x'", 403, "read_only"),
        ("DROP TABLE docs", 403, "read_only"),
        ("CREATE TABLE t AS SELECT 1", 403, "read_only"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", 403, "read_only"),
        ("COPY docs TO '/tmp/never.csv'", 403, "read_only"),
        ("SET datafusion.execution.batch_size = 1", 403, "read_only"),
        ("SELECT * FROM '/etc/passwd'", 400, "invalid_sql"),
        ("SELECT * FROM read_csv('/etc/passwd')", 400, "invalid_sql"),
        ("SELECT nothing FROM docs", 400, "invalid_sql"),
        ("SELECT * FROM vector_search('other', 'x')", 400, "invalid_sql"),
        ("SELEC", 400, "invalid_sql"),
        ("SELECT 1/0", 400, "invalid_sql"),
        ("SELECT repeat('x', 10)", 403, "not_allowed"),
        ("SELECT `repeat`('x', 10)", 403, "not_allowed"),
        ("SELECT arrow_metadata(topic) FROM docs", 403, "not_allowed"),
        ("SELECT version()", 403, "not_allowed"),
        ("SELECT * FROM vector_search('docs', 'x', 5, 'levenshtein(text, text) < 1')", 403, "not_allowed"),
        ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n FROM r) SELECT * FROM r", 403, "not_allowed"),
        (
            "SELECT length(string_agg(concat(value, '0123456789'), '')) FROM generate_series(1, 3000000)",
            422,
            "too_large",
        ),
        ("SELECT 1; SELECT 2", 400, "invalid_sql"),
    ] {
        assert_eq!(server.refused(SQL, json!({ "sql": sql })).await, (status, code.to_owned()), "{sql}");
    }
}

#[tokio::test]
async fn expressions_of_the_allowed_depth_are_computed() {
    let server = Fixture::new().await;
    for sql in [
        format!("SELECT chunk{} AS x FROM docs", "+chunk".repeat(480)),
        format!("SELECT * FROM docs WHERE {}", vec!["chunk=1"; 320].join(" OR ")),
    ] {
        let answer = server.ok(SQL, json!({ "sql": sql })).await;
        assert!(!answer["rows"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn memory_and_time_are_limited() {
    let server = Fixture::with(Limits { sql_memory_bytes: 1 << 20, ..Limits::default() }, Vec::new()).await;
    let large = json!({ "sql": "SELECT count(*) FROM generate_series(1, 10000000) a \
                                JOIN generate_series(1, 10000000) b ON a.value = b.value" });
    assert_eq!(server.refused(SQL, large).await, (422, "too_much_memory".to_owned()));
    let limits = Limits { sql_memory_bytes: 32 << 20, sql_disk_bytes: 1 << 20, ..Limits::default() };
    let server = Fixture::with(limits, Vec::new()).await;
    let spilled = json!({ "sql": "SELECT value FROM generate_series(1, 10000000) ORDER BY -value OFFSET 9999999" });
    assert_eq!(server.refused(SQL, spilled).await, (422, "too_much_disk".to_owned()));
    let server =
        Fixture::with(Limits { request_timeout: std::time::Duration::from_millis(1), ..Limits::default() }, Vec::new())
            .await;
    let long = json!({ "sql": "SELECT sum(a.value * b.value) \
                               FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b" });
    assert_eq!(server.refused(SQL, long).await, (422, "too_slow".to_owned()));
}
