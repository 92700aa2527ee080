//! Small corpora on disk.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The document's id.
    pub id: String,
    /// Its text; `None` is null.
    pub text: Option<String>,
}

impl Row {
    /// A document with a text.
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), text: Some(text.into()) }
    }
}

/// Writes the rows as Parquet with the columns `id` and `text`.
pub fn write_parquet(path: &Path, rows: &[Row]) {
    write(path, rows, None);
}

/// [`write_parquet`] in row groups of this many rows.
pub fn write_row_groups(path: &Path, rows: &[Row], rows_per_group: usize) {
    write(path, rows, Some(WriterProperties::builder().set_max_row_group_row_count(Some(rows_per_group)).build()));
}

fn write(path: &Path, rows: &[Row], properties: Option<WriterProperties>) {
    let schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false), Field::new("text", DataType::Utf8, true)]));
    let ids = StringArray::from_iter_values(rows.iter().map(|row| &row.id));
    let texts: StringArray = rows.iter().map(|row| row.text.as_ref()).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(ids), Arc::new(texts)]).expect("equal lengths");
    let mut writer =
        ArrowWriter::try_new(File::create(path).expect("a writable folder"), schema, properties).expect("a schema");
    writer.write(&batch).expect("a full disk");
    writer.close().expect("a full disk");
}
