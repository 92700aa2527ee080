//! Runs the `.slt` files in this folder on a small table with labels and spans.

use std::{fs, sync::Arc};

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, RecordBatchIterator, StringArray, UInt32Array},
    datatypes::{DataType, Field, FieldRef, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use async_trait::async_trait;
use futures::TryStreamExt;
use lance::Dataset;
use polylance_search::{SearchError, SqlSession};
use polylance_sink::{FullTextUpdate, update_full_text_index};
use polylance_testkit::{classes, spans};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner, strict_column_validator};
use tempfile::TempDir;

use crate::{
    Heads,
    common::{DIM, contract, vectors},
};

/// Document, chunk, language, topic, text; a capitalized word in a text is a name.
const ROWS: [(&str, u32, &str, &str, &str); 6] = [
    ("ada", 0, "en", "people", "the notes of Ada on the engine of Charles"),
    ("ada", 1, "en", "machines", "the engine was never built"),
    ("rights", 0, "en", "law", "everyone has the right to rest and leisure"),
    ("droits", 0, "fr", "law", "tout individu a droit au repos selon Cassin"),
    ("haki", 0, "sw", "law", "kila mtu ana haki ya kupumzika"),
    ("grace", 0, "en", "people", "the compiler that Grace wrote for the machine"),
];

fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// `(first character, name)` of every name in a text.
fn names(text: &str) -> Vec<(u64, &str)> {
    let words = text.split(' ').scan(0, |at, word| {
        let begin = *at;
        *at += word.chars().count() as u64 + 1;
        Some((begin, word))
    });
    words.filter(|(_, word)| word.starts_with(char::is_uppercase)).collect()
}

async fn write(uri: &str) {
    let texts: Vec<String> = ROWS.iter().map(|row| row.4.to_owned()).collect();
    let topics = classes(&ROWS.map(|row| row.3), (0..ROWS.len()).map(|at| 0.5 + at as f32 / 16.0).collect());
    let entities = spans("PER", &ROWS.map(|row| names(row.4)));
    let values = Arc::new(Float32Array::from(vectors(&texts).await));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("doc_id", Arc::new(StringArray::from_iter_values(ROWS.iter().map(|row| row.0)))),
        ("lang", Arc::new(StringArray::from_iter_values(ROWS.iter().map(|row| row.2)))),
        ("chunk", Arc::new(UInt32Array::from_iter_values(ROWS.iter().map(|row| row.1)))),
        ("text", Arc::new(StringArray::from_iter_values(&texts))),
        ("topic", Arc::new(topics)),
        ("entities", Arc::new(entities)),
        ("embedding", Arc::new(FixedSizeListArray::new(field("item", DataType::Float32), DIM as i32, values, None))),
    ];
    let fields: Vec<FieldRef> = columns.iter().map(|(name, column)| field(name, column.data_type().clone())).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, contract().to_metadata()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, column)| column).collect());
    let rows = RecordBatchIterator::new([batch], schema);
    Box::pin(Dataset::write(rows, uri, None)).await.unwrap();
    update_full_text_index(uri, FullTextUpdate::Create).await.unwrap().unwrap();
}

struct Database(SqlSession);

#[async_trait]
impl AsyncDB for Database {
    type Error = SearchError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SearchError> {
        let stream = self.0.query(sql).await?;
        let types = stream.schema().fields().iter().map(|field| kind(field.data_type())).collect();
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(SearchError::from)?;
        let options = FormatOptions::new().with_null("NULL");
        let mut rows = Vec::new();
        for batch in batches {
            let columns: Vec<_> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            rows.extend(
                (0..batch.num_rows())
                    .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>()),
            );
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}
}

fn kind(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        kind if kind.is_integer() => DefaultColumnType::Integer,
        kind if kind.is_floating() => DefaultColumnType::FloatingPoint,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DefaultColumnType::Text,
        _ => DefaultColumnType::Any,
    }
}

#[tokio::test]
async fn statements_return_the_expected_rows() {
    let folder = TempDir::new().unwrap();
    let uri = folder.path().join("docs.lance").display().to_string();
    write(&uri).await;
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sqllogic");
    let mut ran = 0;
    for file in fs::read_dir(files).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|ending| ending != "slt") {
            continue;
        }
        let mut runner = Runner::new(|| async {
            SqlSession::open(&[("docs".to_owned(), uri.clone())], Some(Arc::new(Heads))).await.map(Database)
        });
        runner.with_column_validator(strict_column_validator);
        if let Err(error) = runner.run_file_async(&file).await {
            panic!("{}", error.display(false));
        }
        ran += 1;
    }
    assert!(ran >= 4, "{ran} files in {files}");
}
