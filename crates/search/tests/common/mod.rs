//! A table of the fake model, as a run writes it.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch,
        StringArray, UInt32Array, UInt64Array, new_null_array,
    },
    datatypes::{DataType, Field},
};
use datafusion::{datasource::memory::MemorySourceConfig, physical_plan::collect, prelude::SessionContext};
use polylance_backend::{BackendHandle, TokenizeSpec};
use polylance_schema::{
    Chunking, CommitPolicy, Contract, Pooling, Prompts, TextColumn, columns::ERROR, encoded_schema,
};
use polylance_search::{Models, SearchTable};
use polylance_sink::{TableMark, TableTarget, plan_commit};
use polylance_testkit::FakeBackend;
use tempfile::TempDir;

pub(crate) const DIM: usize = 32;

pub(crate) fn backend(dim: usize) -> BackendHandle {
    BackendHandle(Arc::new(FakeBackend::new(dim)))
}

/// The vectors that a run writes for these texts.
pub(crate) async fn vectors(texts: &[String]) -> Vec<f32> {
    let BackendHandle(backend) = backend(DIM);
    let spec = TokenizeSpec { prefix: contract().prompts.passage, chunking: contract().chunking };
    let chunks = backend.tokenize(texts.to_vec(), &spec).await.unwrap();
    backend.encode(chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect()).await.unwrap().values
}

pub(crate) fn contract() -> Contract {
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

pub(crate) struct TestTable {
    folder: TempDir,
}

impl TestTable {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn uri(&self) -> String {
        self.folder.path().join("docs.lance").to_str().unwrap().to_owned()
    }

    /// Writes one document per text, with ids `d0`, `d1`, …, and language `fra` for every second one.
    pub(crate) async fn write(&self, texts: &[String]) {
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
            mark: TableMark::default(),
            properties: HashMap::new(),
        };
        let input = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap();
        collect(plan_commit(input, target).unwrap(), SessionContext::new().task_ctx()).await.unwrap();
    }

    pub(crate) async fn open(&self) -> SearchTable {
        SearchTable::open(&self.uri()).await.unwrap()
    }
}

/// The fake model, loaded for the table.
pub(crate) fn models() -> Models {
    Models { embedder: Some(backend(DIM)), reranker: None }
}

pub(crate) fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

pub(crate) fn strings(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().flatten().map(str::to_owned).collect()
}

pub(crate) async fn write_three(place: &TestTable) {
    place
        .write(&owned(&["all humans are born free", "everyone has the right to life", "no one shall be a slave"]))
        .await;
}
