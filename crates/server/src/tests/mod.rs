//! The routes, through the router without a network, on a small table with fake models.

mod access;
mod bodies;
mod flight;
mod foreign;
mod mcp;
mod models;
mod search;
mod sql;
mod tables;

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch, RecordBatchIterator,
        StringArray, UInt32Array,
    },
    datatypes::{DataType, Field, FieldRef, Schema},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use lance::{
    Dataset,
    dataset::{WriteMode, WriteParams},
};
use polylance_backend::{AnnotatorHandle, Backend, BackendHandle, TokenizeSpec};
use polylance_schema::{Aggregation, Chunking, Contract, Pooling, Prompts, Scores, TaskSpec};
use polylance_search::{LoadedModels, Models};
use polylance_sink::{FullTextUpdate, update_full_text_index};
use polylance_testkit::{FakeAnnotator, FakeBackend, classes, spans};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::{Limits, ServedModels, TokenHash, routes, state::App};

pub(super) const DIM: usize = 16;
pub(super) const TOKEN: &str = "a-token-of-the-tests";

/// Texts of the table: document, chunk, language, topic, text.
const ROWS: [(&str, u32, &str, &str, &str); 6] = [
    ("d0", 0, "eng", "freedom", "All humans are born free"),
    ("d1", 0, "eng", "life", "everyone has the right to life"),
    ("d2", 0, "fra", "freedom", "Nul ne sera tenu en esclavage"),
    ("d3", 0, "deu", "life", "jeder hat das Recht auf Leben"),
    ("long/one", 1, "eng", "law", "second part about the law"),
    ("long/one", 0, "eng", "law", "first part about the right law"),
];

pub(super) fn contract() -> Contract {
    Contract {
        model: "/secret/folder/fake-model".into(),
        weights_hash: "7c1e".into(),
        tokenizer_hash: "03fa".into(),
        pooling: Pooling::Mean,
        normalize: false,
        prompts: Prompts { passage: String::new(), query: "query: ".into() },
        chunking: Chunking::Truncate { max_tokens: 16 },
        dtype: "f32".into(),
        dim: DIM,
    }
}

/// The vectors of the fake device for these texts.
pub(super) async fn vectors(texts: &[&str], prefix: &str) -> Vec<f32> {
    let backend = FakeBackend::new(DIM);
    let spec = TokenizeSpec { prefix: prefix.into(), chunking: contract().chunking };
    let texts = texts.iter().map(|&text| text.to_owned()).collect();
    let chunks = backend.tokenize(texts, &spec).await.unwrap();
    backend.encode(chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect()).await.unwrap().values
}

fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// A span over the first word of each text.
fn entities() -> ListArray {
    let words: Vec<_> = ROWS.iter().map(|row| vec![(0, row.4.split(' ').next().unwrap())]).collect();
    spans("WORD", &words)
}

/// Columns of every kind that a route reads.
async fn batch() -> RecordBatch {
    let texts: Vec<&str> = ROWS.iter().map(|row| row.4).collect();
    let n = ROWS.len();
    let strings = |of: fn(&(&'static str, u32, &'static str, &'static str, &'static str)) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(ROWS.iter().map(of)))
    };
    let topics = classes(&ROWS.map(|row| row.3), vec![0.5; n]);
    let vectors = Arc::new(Float32Array::from(vectors(&texts, "query: ").await));
    let vectors = FixedSizeListArray::new(field("item", DataType::Float32), DIM as i32, vectors, None);
    let coordinates = || -> ArrayRef { Arc::new(Float32Array::from_iter_values((0..n).map(|at| at as f32))) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("doc_id", strings(|row| row.0)),
        ("lang", strings(|row| row.2)),
        ("rating", Arc::new(Float32Array::from(vec![7.0; n]))),
        ("kept", Arc::new(ROWS.iter().map(|row| Some(row.1 == 0)).collect::<BooleanArray>())),
        ("chunk", Arc::new(UInt32Array::from_iter_values(ROWS.iter().map(|row| row.1)))),
        ("text", strings(|row| row.4)),
        ("topic", Arc::new(topics)),
        ("entities", Arc::new(entities())),
        ("embedding", Arc::new(vectors)),
        ("map_x", coordinates()),
        ("map_y", coordinates()),
    ];
    let schema: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new_with_metadata(schema, contract().to_metadata()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect()).unwrap()
}

/// A server with the table `docs`.
pub(super) struct Fixture {
    pub(super) folder: TempDir,
    pub(super) app: App,
    router: Router,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        Self::with(Limits::default(), Vec::new()).await
    }

    pub(super) async fn with(limits: Limits, tokens: Vec<TokenHash>) -> Self {
        let folder = TempDir::new().unwrap();
        write(&folder, batch().await, WriteMode::Create).await;
        update_full_text_index(&uri(&folder), FullTextUpdate::Create).await.unwrap();
        Self::opened(folder, tokens, limits).await
    }

    /// A server of a table with these rows.
    pub(super) async fn over(batch: RecordBatch) -> Self {
        let folder = TempDir::new().unwrap();
        write(&folder, batch, WriteMode::Create).await;
        Self::opened(folder, Vec::new(), Limits::default()).await
    }

    async fn opened(folder: TempDir, tokens: Vec<TokenHash>, limits: Limits) -> Self {
        let tables = [("docs".to_owned(), uri(&folder))];
        let app = App::open(&tables, models(), tokens, limits).await.unwrap();
        Self { folder, router: routes::router(app.clone()), app }
    }

    /// Commits all rows a second time.
    pub(super) async fn write_again(&self) {
        write(&self.folder, batch().await, WriteMode::Append).await;
    }

    pub(super) async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let folder = self.folder.path().display().to_string();
        for secret in [folder.as_str(), folder.trim_start_matches('/'), "/secret/folder", ".cargo/"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        (parts.status, parts.headers, text)
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (status, _, text) = self.send(request).await;
        (status, json_of(&text))
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let (status, _, text) = self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        (status, json_of(&text))
    }

    /// The response of a request that must succeed.
    pub(super) async fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// The status and the error code of a request that must be refused.
    pub(super) async fn refused(&self, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.post(path, body).await;
        (status.as_u16(), answer["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

fn uri(folder: &TempDir) -> String {
    folder.path().join("docs.lance").display().to_string()
}

async fn write(folder: &TempDir, batch: RecordBatch, mode: WriteMode) {
    let schema = batch.schema();
    let rows = RecordBatchIterator::new([Ok(batch)], schema);
    let params = WriteParams { mode, ..WriteParams::default() };
    Box::pin(Dataset::write(rows, uri(folder).as_str(), Some(params))).await.unwrap();
}

fn models() -> ServedModels {
    let head = |spec| AnnotatorHandle(Arc::new(FakeAnnotator::new(spec)));
    let embedder = Some(BackendHandle(Arc::new(FakeBackend::new(DIM))));
    let heads = [
        ("people".to_owned(), head(TaskSpec::Ner { aggregation: Aggregation::Simple })),
        ("length".to_owned(), head(TaskSpec::Classify { scores: Scores::Best })),
        ("longest".to_owned(), head(TaskSpec::Choose)),
    ];
    ServedModels {
        embedders: Arc::new(LoadedModels(Models { embedder, reranker: None })),
        reranker: Some(head(TaskSpec::Rerank)),
        heads: heads.into(),
    }
}

/// A valid request of each route that has a body.
pub(super) fn valid_requests() -> [(&'static str, Value); 5] {
    [
        ("/v1/search", json!({ "query": "right" })),
        ("/v1/sql", json!({ "sql": "SELECT 1" })),
        ("/v1/embeddings", json!({ "input": "a" })),
        ("/v1/rerank", json!({ "query": "q", "documents": ["a"] })),
        ("/v1/predict", json!({ "head": "people", "inputs": ["Ada"] })),
    ]
}
