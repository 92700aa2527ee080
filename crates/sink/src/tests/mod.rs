//! Runs on real tables in a temporary folder.

mod columns;
mod commit;
mod index;
mod maintenance;
mod projection;
mod quarantine;
pub(crate) mod table;
mod write;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch,
        StringArray, StructArray, UInt32Array, UInt64Array,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Field, FieldRef, SchemaRef, UInt32Type, UInt64Type},
};
use datafusion::{
    datasource::memory::MemorySourceConfig,
    physical_plan::{ExecutionPlan, collect},
    prelude::SessionContext,
};
use futures::TryStreamExt;
use lance::Dataset;
use polylance_schema::{Chunking, CommitPolicy, Contract, Pooling, Prompts, TextColumn, encoded_schema, error_fields};
use tempfile::TempDir;

use crate::{CommitReport, TableMark, TableTarget, plan_commit};

const DIM: usize = 8;

/// A document of some chunks, from one row of `corpus.csv`.
#[derive(Debug, Clone)]
pub(crate) struct Doc {
    id: Option<String>,
    row: u64,
    chunks: Vec<String>,
    lang: Option<String>,
    /// The chunk with an error.
    error: Option<usize>,
}

impl Doc {
    fn new(row: u64, id: &str, chunks: &[&str]) -> Self {
        let chunks = chunks.iter().map(|&text| text.to_owned()).collect();
        Self { id: Some(id.to_owned()), row, chunks, lang: Some("fra".to_owned()), error: None }
    }

    fn failing_at(self, chunk: usize) -> Self {
        Self { error: Some(chunk), ..self }
    }

    fn hash(&self) -> [u8; 16] {
        let mut hash = [0; 16];
        for (i, byte) in self.chunks.concat().bytes().enumerate() {
            hash[i % 16] ^= byte;
        }
        hash
    }
}

fn keep() -> Vec<FieldRef> {
    vec![Arc::new(Field::new("lang", DataType::Utf8, true))]
}

fn input_schema() -> SchemaRef {
    encoded_schema(&keep(), DIM)
}

/// An encoded batch, one row per chunk.
fn batch(docs: &[Doc]) -> RecordBatch {
    let rows: Vec<(&Doc, usize)> = docs.iter().flat_map(|doc| (0..doc.chunks.len()).map(move |i| (doc, i))).collect();
    let failed = |(doc, chunk): &(&Doc, usize)| doc.error == Some(*chunk);
    let number = |value: fn(&(&Doc, usize)) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(value)))
    };
    let values = rows.iter().flat_map(|(doc, chunk)| {
        (0..DIM).map(|d| ((doc.row as usize * 31 + chunk * 7 + d) % 17) as f32 + 0.5).collect::<Vec<_>>()
    });
    let embedding = FixedSizeListArray::new(
        Arc::new(Field::new("item", DataType::Float32, true)),
        DIM as i32,
        Arc::new(Float32Array::from_iter_values(values)),
        Some(rows.iter().map(|row| !failed(row)).collect::<NullBuffer>()),
    );
    let errors = StructArray::new(
        error_fields(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "encode"))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| if failed(row) { "refused" } else { "" }))),
        ],
        Some(rows.iter().map(failed).collect::<NullBuffer>()),
    );
    let hashes = FixedSizeBinaryArray::try_from_iter(rows.iter().map(|(doc, _)| doc.hash()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(doc, _)| doc.id.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|(doc, _)| doc.lang.as_deref()).collect::<StringArray>()),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(_, chunk)| *chunk as u32))),
        number(|(_, chunk)| *chunk as u64 * 10),
        number(|(_, chunk)| *chunk as u64 * 10 + 10),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(doc, chunk)| &doc.chunks[*chunk]))),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|_| 5))),
        Arc::new(BooleanArray::from(vec![false; rows.len()])),
        Arc::new(embedding),
        if rows.is_empty() {
            arrow::array::new_empty_array(&DataType::FixedSizeBinary(16))
        } else {
            Arc::new(hashes.unwrap())
        },
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "corpus.csv"))),
        number(|(doc, _)| doc.row),
        Arc::new(errors),
    ];
    RecordBatch::try_new(input_schema(), columns).unwrap()
}

fn contract() -> Contract {
    Contract {
        model: "fake".into(),
        weights_hash: "7c1e".into(),
        tokenizer_hash: "03fa".into(),
        pooling: Pooling::Mean,
        normalize: true,
        prompts: Prompts::default(),
        chunking: Chunking::Truncate { max_tokens: 64 },
        dtype: "f32".into(),
        dim: DIM,
    }
}

/// A table in a folder of its own.
struct TestTable {
    folder: TempDir,
}

impl TestTable {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn uri(&self) -> String {
        self.folder.path().join("docs.lance").to_str().unwrap().to_owned()
    }

    fn target(&self, run_id: &str, rows: u64) -> TableTarget {
        TableTarget {
            uri: self.uri(),
            text: TextColumn::Kept,
            commit: CommitPolicy { rows, seconds: 0 },
            contract: contract(),
            keep: keep(),
            heads: Vec::new(),
            run_id: run_id.to_owned(),
            mark: TableMark::default(),
            properties: HashMap::from([("pipeline".to_owned(), "test.toml".to_owned())]),
        }
    }

    async fn dataset(&self) -> Dataset {
        Dataset::open(&self.uri()).await.unwrap()
    }

    /// `(doc_id, chunk, text, run_id)` of every row, in the table's order.
    async fn rows(&self) -> Vec<(String, u32, String, String)> {
        let batch = self.dataset().await.scan().try_into_batch().await.unwrap();
        let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (ids, texts, runs) = (text("doc_id"), text("text"), text("run_id"));
        let chunks = batch.column_by_name("chunk").unwrap().as_primitive::<UInt32Type>();
        (0..batch.num_rows())
            .map(|i| (ids.value(i).into(), chunks.value(i), texts.value(i).into(), runs.value(i).into()))
            .collect()
    }

    /// `(doc_id, chunk)` of every row.
    async fn keys(&self) -> Vec<(String, u32)> {
        self.rows().await.into_iter().map(|(id, chunk, ..)| (id, chunk)).collect()
    }
}

fn plan(batches: Vec<RecordBatch>, target: TableTarget) -> Arc<dyn ExecutionPlan> {
    let input = MemorySourceConfig::try_new_exec(&[batches], input_schema(), None).unwrap();
    plan_commit(input, target).unwrap()
}

/// Runs to the end; the reports of the commits.
async fn run(batches: Vec<RecordBatch>, target: TableTarget) -> datafusion::error::Result<Vec<CommitReport>> {
    let commits = collect(plan(batches, target), SessionContext::new().task_ctx()).await?;
    Ok(commits.iter().flat_map(|batch| CommitReport::from_batch(batch).unwrap()).collect())
}

async fn read(plan: Arc<dyn ExecutionPlan>) -> Vec<RecordBatch> {
    plan.execute(0, SessionContext::new().task_ctx()).unwrap().try_collect().await.unwrap()
}
