//! Search, SQL and description of tables that the sink wrote.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch,
        StringArray, UInt32Array, UInt64Array, new_null_array,
    },
    datatypes::{DataType, Field, Float32Type, Int64Type},
};
use datafusion::{datasource::memory::MemorySourceConfig, physical_plan::collect, prelude::SessionContext};
use futures::TryStreamExt;
use polylance_backend::{BackendHandle, TokenizeSpec};
use polylance_schema::{Chunking, Contract, Pooling, Prompts, TextColumn, columns::ERROR, encoded_schema};
use polylance_search::{SearchError, SearchRequest, SqlSession, describe, search, table_contract};
use polylance_sink::{
    CommitPolicy, IndexKind, IndexSpec, Metric, TableTarget, plan_commit, properties, quarantine_uri, update_index,
};
use polylance_testkit::FakeBackend;
use tempfile::TempDir;

const DIM: usize = 32;

fn backend(dim: usize) -> BackendHandle {
    BackendHandle(Arc::new(FakeBackend::new(dim)))
}

/// What a run would write for these texts.
async fn vectors(texts: &[String]) -> Vec<f32> {
    let BackendHandle(backend) = backend(DIM);
    let spec = TokenizeSpec { prefix: contract().prompts.passage, chunking: contract().chunking };
    let chunks = backend.tokenize(texts.to_vec(), &spec).await.unwrap();
    backend.encode(chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect()).await.unwrap().values
}

fn contract() -> Contract {
    Contract {
        model: "fake".into(),
        weights_hash: "7c1e".into(),
        tokenizer_hash: "03fa".into(),
        pooling: Pooling::Mean,
        normalize: true,
        prompts: Prompts { passage: "passage: ".into(), query: "passage: ".into() },
        chunking: Chunking::Truncate { max_tokens: 64 },
        dtype: "f32".into(),
        dim: DIM,
    }
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn uri(&self) -> String {
        self.folder.path().join("docs.lance").to_str().unwrap().to_owned()
    }

    /// Writes one document a text, with ids `d0`, `d1`, …, and language `fra` for every second one.
    async fn write(&self, texts: &[String]) {
        let keep = vec![Arc::new(Field::new("lang", DataType::Utf8, true))];
        let schema = encoded_schema(&keep, DIM);
        let n = texts.len();
        let embedding = FixedSizeListArray::new(
            Arc::new(Field::new("item", DataType::Float32, true)),
            DIM as i32,
            Arc::new(Float32Array::from(vectors(texts).await)),
            None,
        );
        let hashes = (0..n as u128).map(u128::to_le_bytes);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values((0..n).map(|i| format!("d{i}")))),
            Arc::new(StringArray::from_iter_values((0..n).map(|i| if i % 2 == 0 { "fra" } else { "deu" }))),
            Arc::new(UInt32Array::from(vec![0; n])),
            Arc::new(UInt64Array::from(vec![0; n])),
            Arc::new(UInt64Array::from_iter_values(texts.iter().map(|text| text.chars().count() as u64))),
            Arc::new(StringArray::from_iter_values(texts)),
            Arc::new(UInt32Array::from(vec![3; n])),
            Arc::new(BooleanArray::from(vec![false; n])),
            Arc::new(embedding),
            if n == 0 {
                new_null_array(&DataType::FixedSizeBinary(16), 0)
            } else {
                Arc::new(FixedSizeBinaryArray::try_from_iter(hashes).unwrap())
            },
            Arc::new(StringArray::from(vec!["corpus.csv"; n])),
            Arc::new(UInt64Array::from_iter_values(0..n as u64)),
            new_null_array(schema.field_with_name(ERROR).unwrap().data_type(), n),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let target = TableTarget {
            uri: self.uri(),
            text: TextColumn::Kept,
            commit: CommitPolicy { rows: 0, seconds: 0 },
            contract: contract(),
            keep,
            heads: Vec::new(),
            run_id: "r1".into(),
            properties: HashMap::new(),
        };
        let input = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap();
        collect(plan_commit(input, target).unwrap(), SessionContext::new().task_ctx()).await.unwrap();
    }

    fn request(&self, query: &str, k: usize, filter: Option<&str>) -> SearchRequest {
        SearchRequest { table: self.uri(), query: query.into(), k, filter: filter.map(str::to_owned) }
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn strings(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().flatten().map(str::to_owned).collect()
}

async fn write_three(place: &Place) {
    place
        .write(&owned(&["all humans are born free", "everyone has the right to life", "no one shall be a slave"]))
        .await;
}

#[tokio::test]
async fn the_text_itself_is_its_nearest_neighbour() {
    let place = Place::new();
    write_three(&place).await;
    let hits = search(&place.request("everyone has the right to life", 2, None), &backend(DIM)).await.unwrap();
    assert_eq!(strings(&hits, "doc_id")[0], "d1");
    assert_eq!(hits.num_rows(), 2);
    let names: Vec<_> = hits.schema().fields().iter().map(|f| f.name().clone()).collect();
    let expected = ["doc_id", "lang", "chunk", "char_start", "char_end", "text", "n_tokens", "truncated", "run_id"];
    assert_eq!(names[..9], expected);
    assert_eq!(names[9..], ["_distance", "score"]);
    let number = |name: &str| hits.column_by_name(name).unwrap().as_primitive::<Float32Type>().clone();
    let (distance, score) = (number("_distance"), number("score"));
    assert!(distance.value(0).abs() < 1e-6 && distance.value(0) <= distance.value(1));
    assert!((score.value(1) - (1.0 - distance.value(1))).abs() < 1e-6);
}

#[tokio::test]
async fn a_filter_is_applied_before_the_search() {
    let place = Place::new();
    write_three(&place).await;
    let query = "everyone has the right to life";
    let hits = search(&place.request(query, 2, Some("lang = 'fra'")), &backend(DIM)).await.unwrap();
    let mut found = strings(&hits, "doc_id");
    found.sort();
    assert_eq!(found, ["d0", "d2"]);
}

#[tokio::test]
async fn what_cannot_be_searched_says_why() {
    let place = Place::new();
    let missing = search(&place.request("x", 1, None), &backend(DIM)).await.unwrap_err();
    assert!(matches!(missing, SearchError::NoTable { .. }), "{missing}");
    write_three(&place).await;
    let no_column = search(&place.request("x", 1, Some("language = 'fra'")), &backend(DIM)).await.unwrap_err();
    assert!(matches!(&no_column, SearchError::Filter { filter, .. } if filter == "language = 'fra'"), "{no_column}");
    let no_sql = search(&place.request("x", 1, Some("lang ==== ")), &backend(DIM)).await.unwrap_err();
    assert!(matches!(no_sql, SearchError::Filter { .. }), "{no_sql}");
    let other_model = search(&place.request("x", 1, None), &backend(16)).await.unwrap_err();
    assert!(matches!(other_model, SearchError::Dimensions { table: 32, backend: 16, .. }), "{other_model}");
    for (query, k) in [("x", 0), (" ", 1)] {
        let error = search(&place.request(query, k, None), &backend(DIM)).await.unwrap_err();
        assert!(matches!(error, SearchError::Query(_)), "{error}");
    }
}

#[tokio::test]
async fn an_empty_table_has_no_hits() {
    let place = Place::new();
    place.write(&[]).await;
    let hits = search(&place.request("anything", 3, None), &backend(DIM)).await.unwrap();
    assert_eq!(hits.num_rows(), 0);
    assert_eq!(table_contract(&place.uri()).await.unwrap(), contract());
}

#[tokio::test]
async fn an_index_finds_the_same_first_hit_and_is_described() {
    let place = Place::new();
    let texts: Vec<_> = (0..400).map(|i| format!("w{} x{} y{}", i, i * 7, i * 13)).collect();
    place.write(&texts).await;
    for (metric, scored) in [(Metric::Cosine, true), (Metric::L2, false)] {
        let spec = IndexSpec { kind: IndexKind::IvfPq, metric, ..IndexSpec::default() };
        update_index(&place.uri(), &spec).await.unwrap();
        let hits = search(&place.request(&texts[123], 3, None), &backend(DIM)).await.unwrap();
        let distance = hits.column_by_name("_distance").unwrap().as_primitive::<Float32Type>();
        assert!(distance.value(0).abs() < 1e-5, "distances are exact after refining: {distance:?}");
        assert_eq!(hits.column_by_name("score").is_some(), scored);
    }
    let table = describe(&place.uri()).await.unwrap();
    let index = &table.indices[0];
    assert_eq!(
        (index.column.as_str(), index.kind.as_str(), index.metric.as_deref()),
        ("embedding", "IVF_PQ", Some("l2"))
    );
    assert_eq!((index.indexed_rows, index.unindexed_rows), (400, 0));
}

#[tokio::test]
async fn a_description_tells_what_the_table_is() {
    let place = Place::new();
    write_three(&place).await;
    let table = describe(&place.uri()).await.unwrap();
    assert_eq!((table.rows, table.version, table.versions, table.quarantine_rows), (3, 1, 1, 0));
    assert_eq!(table.contract, Some(contract()));
    assert_eq!(table.schema.iter().filter(|c| c.name == "embedding" && !c.nullable).count(), 1);
    let version = &table.recent_versions[0];
    assert_eq!((version.rows, version.run_id.as_deref()), (Some(3), Some("r1")));
    assert!(version.time.ends_with('Z'));
    let json = serde_json::to_value(&table).unwrap();
    assert_eq!(json["schema"][0]["type"], "Utf8");

    // The names that both crates write down are the same.
    assert_eq!(properties::RUN_ID, "polylance.run_id");
    let other = Place::new();
    write_three(&other).await;
    std::fs::rename(other.uri(), quarantine_uri(&place.uri())).unwrap();
    assert_eq!(describe(&place.uri()).await.unwrap().quarantine_rows, 3);
}

async fn numbers(session: &SqlSession, sql: &str) -> Vec<i64> {
    let batches: Vec<RecordBatch> = session.query(sql).await.unwrap().try_collect().await.unwrap();
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn sql_reads_tables_by_name() {
    let place = Place::new();
    write_three(&place).await;
    let session = SqlSession::open(&[(String::new(), place.uri()), ("Corpus".into(), place.uri())]).await.unwrap();
    assert_eq!(numbers(&session, "SELECT count(*) FROM docs WHERE lang = 'fra'").await, [2]);
    let join = r#"SELECT count(*) FROM docs JOIN "Corpus" c USING (doc_id) WHERE c.text LIKE '%right%'"#;
    assert_eq!(numbers(&session, join).await, [1]);
    let tables = session.query("SHOW TABLES").await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert!(tables.iter().map(RecordBatch::num_rows).sum::<usize>() >= 2);
}

#[tokio::test]
async fn sql_changes_nothing() {
    let place = Place::new();
    write_three(&place).await;
    let session = SqlSession::open(&[("docs".into(), place.uri())]).await.unwrap();
    for statement in [
        "DELETE FROM docs",
        "INSERT INTO docs SELECT * FROM docs",
        "CREATE TABLE t AS SELECT * FROM docs",
        "DROP TABLE docs",
        "COPY docs TO '/tmp/never.parquet'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let Err(error) = session.query(statement).await else { panic!("{statement} was allowed") };
        assert!(matches!(error, SearchError::ReadOnly(_)), "{statement}: {error}");
    }
    let Err(error) = session.query("SELECT nothing FROM docs").await else { panic!("no such column") };
    assert!(matches!(&error, SearchError::Sql(_)) && error.to_string().contains("nothing"), "{error}");
    let twice = [("docs".into(), place.uri()), ("docs".into(), place.uri())];
    assert!(matches!(SqlSession::open(&twice).await, Err(SearchError::DuplicateTable(name)) if name == "docs"));
}
