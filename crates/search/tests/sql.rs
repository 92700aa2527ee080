//! SQL over tables that `sink` wrote: queries, vector functions, search functions, and refused statements.

mod common;
mod sqllogic;

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Float32Type, Int64Type},
    util::pretty::pretty_format_batches,
};
use common::{TestTable, models, owned, strings, write_three};
use futures::{
    FutureExt, TryStreamExt,
    future::{BoxFuture, ready},
};
use polylance_backend::AnnotatorHandle;
use polylance_schema::{Aggregation, Contract, IndexKind, Metric, Scores, TaskSpec};
use polylance_search::{LoadedModels, ModelSource, Models, QueryError, SearchError, SqlRuntime, SqlSession};
use polylance_sink::{FullTextUpdate, IndexSpec, update_full_text_index, update_index};
use polylance_testkit::FakeAnnotator;

async fn session(stored: &TestTable) -> SqlSession {
    let models = Arc::new(LoadedModels(models()));
    SqlSession::over(
        [("docs".to_owned(), Arc::new(stored.open().await))],
        models,
        Some(&SqlRuntime::new(1 << 30, 1 << 30).unwrap()),
    )
    .unwrap()
}

async fn rows(session: &SqlSession, sql: &str) -> RecordBatch {
    let stream = session.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let schema = stream.schema();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

async fn refused(session: &SqlSession, sql: &str) -> SearchError {
    match session.query(sql).await {
        Err(error) => error,
        Ok(stream) => match stream.try_collect::<Vec<RecordBatch>>().await {
            Err(error) => SearchError::from(error),
            Ok(_) => panic!("{sql} was allowed"),
        },
    }
}

async fn numbers(session: &SqlSession, sql: &str) -> Vec<i64> {
    rows(session, sql).await.column(0).as_primitive::<Int64Type>().values().to_vec()
}

async fn documents(session: &SqlSession, sql: &str) -> Vec<String> {
    strings(&rows(session, sql).await, "doc_id")
}

#[tokio::test]
async fn tables_are_queried_by_name() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let session =
        SqlSession::open(&[(String::new(), stored.uri()), ("Corpus".into(), stored.uri())], None).await.unwrap();
    assert_eq!(numbers(&session, "SELECT count(*) FROM docs WHERE lang = 'fra'").await, [2]);
    let join = r#"SELECT count(*) FROM docs JOIN "Corpus" c USING (doc_id) WHERE c.text LIKE '%right%'"#;
    assert_eq!(numbers(&session, join).await, [1]);
    assert!(rows(&session, "SHOW TABLES").await.num_rows() >= 2);
}

#[tokio::test]
async fn truncated_data_file_error_names_the_table() {
    let stored = TestTable::new();
    write_three(&stored).await;
    for file in std::fs::read_dir(format!("{}/data", stored.uri())).unwrap() {
        std::fs::write(file.unwrap().path(), "cut off").unwrap();
    }
    let session = SqlSession::open(&[("docs".into(), stored.uri())], None).await.unwrap();
    for sql in ["SELECT max(text) FROM docs", "SELECT lang, count(*) FROM docs WHERE text LIKE 'a%' GROUP BY lang"] {
        let error = refused(&session, sql).await;
        assert!(matches!(&error, SearchError::Storage { uri, .. } if *uri == stored.uri()), "{sql}: {error:?}");
        assert!(error.to_string() == format!("{}: reading failed", stored.uri()), "{error}");
    }
}

#[tokio::test]
async fn statements_that_write_are_refused() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let session = SqlSession::open(&[("docs".into(), stored.uri())], None).await.unwrap();
    for statement in [
        "DELETE FROM docs",
        "INSERT INTO docs SELECT * FROM docs",
        "CREATE TABLE t AS SELECT * FROM docs",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "DROP TABLE docs",
        "COPY docs TO '/tmp/never.parquet'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let error = refused(&session, statement).await;
        assert!(matches!(error, SearchError::ReadOnly(_)), "{statement}: {error}");
    }
    let error = refused(&session, "SELECT nothing FROM docs").await;
    assert!(matches!(&error, SearchError::Sql(_)) && error.to_string().contains("nothing"), "{error}");
    let twice = [("docs".into(), stored.uri()), ("docs".into(), stored.uri())];
    assert!(matches!(SqlSession::open(&twice, None).await, Err(SearchError::DuplicateTable(name)) if name == "docs"));
}

#[tokio::test]
async fn vector_functions_compute_and_check_their_arguments() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let session = session(&stored).await;
    for (sql, expected) in [
        ("cosine_similarity([3.0, 4.0], [6.0, 8.0])", 1.0),
        ("cosine_similarity([1.0, 0.0], [0, 2])", 0.0),
        ("dot_product([1.0, 2.0], [3.0, 4.0])", 11.0),
        ("l2_distance([0.0, 0.0], [3.0, 4.0])", 5.0),
        ("dot_product(truncate_embedding([3.0, 4.0, 12.0], 2), [1.0, 0.0])", 0.6),
        ("cosine_similarity(embed('all humans'), embed('all humans'))", 1.0),
    ] {
        let value = rows(&session, &format!("SELECT {sql}")).await;
        let value = value.column(0).as_primitive::<Float32Type>().value(0);
        assert!((value - expected).abs() < 1e-6, "{sql} = {value}");
    }
    let nothing = rows(&session, "SELECT cosine_similarity([0.0, 0.0], [1.0, 2.0])").await;
    assert_eq!(nothing.column(0).null_count(), 1, "a vector of zeros has no direction");
    let each =
        "SELECT doc_id FROM docs WHERE cosine_similarity(embedding, embed(text, 'passage')) > 0.9999 ORDER BY doc_id";
    assert_eq!(documents(&session, each).await, ["d0", "d1", "d2"], "a column is embedded as its rows were");
    for wrong in [
        "SELECT cosine_similarity([1.0], [1.0, 2.0])",
        "SELECT cosine_similarity('a', [1.0])",
        "SELECT truncate_embedding([1.0], 2)",
        "SELECT embed('a', 'document')",
        "SELECT embed(1, 2, 3)",
    ] {
        let error = refused(&session, wrong).await;
        assert!(matches!(error, SearchError::Sql(_)), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn search_functions_return_tables() {
    let stored = TestTable::new();
    write_three(&stored).await;
    update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    let session = session(&stored).await;
    let nearest = "SELECT doc_id, score FROM vector_search('docs', 'everyone has the right to life', 2)";
    assert_eq!(documents(&session, nearest).await[0], "d1");
    assert_eq!(documents(&session, "SELECT * FROM text_search('docs', 'slave')").await, ["d2"]);
    let both = "SELECT doc_id, vector_rank, text_rank FROM hybrid_search('docs', 'right to life', 3, '', 'rrf') ORDER BY score DESC";
    assert_eq!(documents(&session, both).await[0], "d1");
    let by_words = "SELECT doc_id FROM hybrid_search('docs', 'right to life', 3, '', 'score', 9) ORDER BY score DESC";
    assert_eq!(documents(&session, by_words).await[0], "d1");
    let condition = "SELECT doc_id FROM vector_search('docs', 'everyone has the right to life', 5, 'doc_id <> ''d1''')";
    assert_eq!(documents(&session, condition).await.len(), 2);
    let joined =
        "SELECT d.doc_id FROM text_search('docs', 'slave') s JOIN docs d ON d.doc_id = s.doc_id AND d.chunk = s.chunk";
    assert_eq!(documents(&session, joined).await, ["d2"]);
    assert_eq!(documents(&session, "SELECT doc_id FROM neighbors('docs', 'd0', 5)").await.len(), 2);
    for wrong in [
        "SELECT * FROM vector_search('docs')",
        "SELECT * FROM vector_search('other', 'x')",
        "SELECT * FROM vector_search('docs', 'x', 0)",
        "SELECT * FROM vector_search('docs', 'x', 3, 'no sql at all')",
        "SELECT * FROM neighbors('docs', 'd9')",
        "SELECT * FROM spans('docs', 'text')",
        "SELECT * FROM spans('docs', 'nothing')",
    ] {
        let error = refused(&session, wrong).await;
        let expected = matches!(error, SearchError::Sql(_) | SearchError::Query(_) | SearchError::Filter { .. });
        assert!(expected, "{wrong}: {error}");
    }
}

#[tokio::test]
async fn order_by_similarity_reads_from_the_index() {
    let stored = TestTable::new();
    let texts: Vec<_> = (0..400).map(|i| format!("w{} x{} y{}", i, i * 7, i * 13)).collect();
    stored.write(&texts).await;
    let order = |columns: &str| {
        let text = &texts[123];
        format!("SELECT {columns} FROM docs ORDER BY cosine_similarity(embedding, embed('{text}')) DESC LIMIT 3")
    };
    let before = documents(&session(&stored).await, &order("doc_id")).await;
    assert_eq!(before[0], "d123");
    update_index(&stored.uri(), &IndexSpec { kind: IndexKind::IvfPq, ..IndexSpec::default() }).await.unwrap();
    let session = session(&stored).await;
    assert_eq!(documents(&session, &order("doc_id")).await[0], "d123");
    let named = format!(
        "SELECT doc_id, cosine_similarity(embedding, embed('{}')) AS s FROM docs WHERE lang = 'deu' ORDER BY s DESC LIMIT 2",
        texts[123]
    );
    assert_eq!(documents(&session, &named).await[0], "d123");
    let uses_index =
        |plan: &RecordBatch| pretty_format_batches(std::slice::from_ref(plan)).unwrap().to_string().contains("ANN");
    for sql in [order("doc_id"), named] {
        let plan = rows(&session, &format!("EXPLAIN {sql}")).await;
        assert!(uses_index(&plan), "{sql}\n{}", pretty_format_batches(std::slice::from_ref(&plan)).unwrap());
    }
    // What the index cannot answer reads every row.
    let other_way = order("doc_id").replace("DESC", "ASC");
    let other_measure = order("doc_id").replace("cosine_similarity", "dot_product");
    let grouped = "SELECT lang, max(cosine_similarity(embedding, embed('w1'))) AS s FROM docs GROUP BY lang ORDER BY s DESC LIMIT 1";
    for sql in [other_way.as_str(), other_measure.as_str(), grouped] {
        assert!(!uses_index(&rows(&session, &format!("EXPLAIN {sql}")).await), "{sql}");
    }
}

#[tokio::test]
async fn l2_index_answers_order_by_l2_distance() {
    let stored = TestTable::new();
    let texts: Vec<_> = (0..300).map(|i| format!("w{} x{}", i, i * 7)).collect();
    stored.write(&texts).await;
    let spec = IndexSpec { kind: IndexKind::IvfFlat, metric: Metric::L2, ..IndexSpec::default() };
    update_index(&stored.uri(), &spec).await.unwrap();
    let sql = format!("SELECT doc_id FROM docs ORDER BY l2_distance(embedding, embed('{}')) LIMIT 2", texts[42]);
    let session = session(&stored).await;
    assert_eq!(documents(&session, &sql).await[0], "d42");
    let plan = rows(&session, &format!("EXPLAIN {sql}")).await;
    assert!(pretty_format_batches(&[plan]).unwrap().to_string().contains("ANN"));
}

/// Fake heads.
#[derive(Debug)]
struct Heads;

impl ModelSource for Heads {
    fn models(&self, _: &Contract) -> BoxFuture<'static, Result<Models, SearchError>> {
        ready(Ok(models())).boxed()
    }

    fn head(&self, name: &str) -> BoxFuture<'static, Result<AnnotatorHandle, SearchError>> {
        let spec = match name {
            "length" => TaskSpec::Classify { scores: Scores::Best },
            "names" => TaskSpec::Ner { aggregation: Aggregation::Simple },
            other => {
                let error = QueryError::NoHead { name: other.to_owned(), known: Vec::new() };
                return ready(Err(error.into())).boxed();
            }
        };
        ready(Ok(AnnotatorHandle(Arc::new(FakeAnnotator::new(spec))))).boxed()
    }
}

#[tokio::test]
async fn head_functions_annotate_rows() {
    let stored = TestTable::new();
    stored.write(&owned(&["Ada met Charles", "a text that has more than forty characters in it"])).await;
    let session = SqlSession::open(&[("docs".into(), stored.uri())], Some(Arc::new(Heads))).await.unwrap();
    let classes = rows(
        &session,
        "SELECT doc_id, c.label AS label FROM (SELECT doc_id, classify(text, 'length') AS c FROM docs) ORDER BY doc_id",
    )
    .await;
    assert_eq!(strings(&classes, "label"), ["short", "long"]);
    let found = rows(
        &session,
        "SELECT s['text'] AS text, s['start'] AS start FROM
             (SELECT unnest(entities(text, 'names')) AS s FROM docs) ORDER BY start",
    )
    .await;
    assert_eq!(strings(&found, "text"), ["Ada", "Charles"]);
    let filtered = "SELECT doc_id FROM docs WHERE classify(text, 'length')['label'] = 'long'";
    assert_eq!(documents(&session, filtered).await, ["d1"]);
    for wrong in ["SELECT classify(text, 'other') FROM docs", "SELECT classify(text, 'names') FROM docs"] {
        let error = refused(&session, wrong).await;
        assert!(matches!(error, SearchError::Query(_) | SearchError::Sql(_)), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn statements_that_need_a_model_are_refused_without_one() {
    let stored = TestTable::new();
    stored.write(&owned(&["one row"])).await;
    let session = SqlSession::open(&[("docs".into(), stored.uri())], None).await.unwrap();
    for sql in ["SELECT embed('x')", "SELECT * FROM vector_search('docs', 'x')"] {
        let error = refused(&session, sql).await;
        assert!(error.to_string().contains("no model is loaded"), "{sql}: {error}");
    }
}
