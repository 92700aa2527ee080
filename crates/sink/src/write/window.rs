//! Windows: the write operator sends each one to the commit operator as a row.
//!
//! ```text
//! fragments    Utf8                            data files that are not yet part of the table, as Lance's JSON
//! documents    List<Struct<doc_id, source, row>>        documents whose rows are all in these files
//! chunks       UInt64                          rows in these files
//! tokens       UInt64                          the sum of their `n_tokens`
//! quarantine   List<Struct<source, row, doc_id, stage, error, text>>   documents that failed
//! fields       Utf8                            ids, names and types of the fields of these files, as JSON
//! ```
//!
//! A window is plain Arrow: the commit operator needs nothing else from the writer.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray, UInt64Array},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UInt64Type},
    error::ArrowError,
};
use lance_table::format::Fragment;
use polylance_schema::CommitPolicy;

use super::field_ids::WrittenField;
use crate::maintenance::policy::Retention;

/// How long a window may be open. Its first data file must be committed long before a cleanup may take it for a file
/// that a killed run left behind: 0, or more than half an hour, counts as half an hour.
pub(crate) fn max_window_duration(commit: CommitPolicy) -> Duration {
    let max = Retention::MIN_ORPHAN_AGE / 2;
    if commit.seconds == 0 { max } else { Duration::from_secs(commit.seconds).min(max) }
}

/// A document and its position in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) doc_id: String,
    pub(crate) source: String,
    pub(crate) row: u64,
}

/// A document that could not be embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedDocument {
    pub(crate) source: String,
    pub(crate) row: u64,
    pub(crate) doc_id: Option<String>,
    pub(crate) stage: String,
    pub(crate) error: String,
    pub(crate) text: Option<String>,
}

/// The contents of one commit.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) fragments: Vec<Fragment>,
    /// The fields of their files.
    pub(crate) fields: Vec<WrittenField>,
    pub(crate) documents: Vec<Document>,
    pub(crate) chunks: u64,
    pub(crate) tokens: u64,
    pub(crate) quarantine: Vec<FailedDocument>,
}

fn document_fields() -> Fields {
    Fields::from(vec![
        Field::new("doc_id", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("row", DataType::UInt64, false),
    ])
}

fn quarantine_fields() -> Fields {
    Fields::from(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("row", DataType::UInt64, false),
        Field::new("doc_id", DataType::Utf8, true),
        Field::new("stage", DataType::Utf8, false),
        Field::new("error", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, true),
    ])
}

fn item(fields: Fields) -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(fields), false))
}

/// The columns of a window.
pub fn window_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("fragments", DataType::Utf8, false),
        Field::new("documents", DataType::List(item(document_fields())), false),
        Field::new("chunks", DataType::UInt64, false),
        Field::new("tokens", DataType::UInt64, false),
        Field::new("quarantine", DataType::List(item(quarantine_fields())), false),
        Field::new("fields", DataType::Utf8, false),
    ]))
}

fn text<'a, T: 'a>(rows: &'a [T], value: impl Fn(&'a T) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
}

fn nullable_text<'a, T: 'a>(rows: &'a [T], value: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef {
    rows.iter().map(value).collect::<StringArray>().into_arc()
}

trait IntoArc {
    fn into_arc(self) -> ArrayRef;
}

impl IntoArc for StringArray {
    fn into_arc(self) -> ArrayRef {
        Arc::new(self)
    }
}

fn one_list(fields: Fields, columns: Vec<ArrayRef>, len: usize) -> Result<ArrayRef, ArrowError> {
    let rows = StructArray::try_new(fields.clone(), columns, None)?;
    let list = ListArray::try_new(item(fields), OffsetBuffer::from_lengths([len]), Arc::new(rows), None)?;
    Ok(Arc::new(list))
}

impl Window {
    /// The window as a batch of one row of [`window_schema`].
    pub(crate) fn to_batch(&self) -> Result<RecordBatch, ArrowError> {
        let fragments = serde_json::to_string(&self.fragments).map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let fields = serde_json::to_string(&self.fields).map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let documents = &self.documents;
        let document_columns = vec![
            text(documents, |d| &d.doc_id),
            text(documents, |d| &d.source),
            Arc::new(UInt64Array::from_iter_values(documents.iter().map(|d| d.row))) as ArrayRef,
        ];
        let failed = &self.quarantine;
        let quarantine_columns = vec![
            text(failed, |b| &b.source),
            Arc::new(UInt64Array::from_iter_values(failed.iter().map(|b| b.row))) as ArrayRef,
            nullable_text(failed, |b| b.doc_id.as_deref()),
            text(failed, |b| &b.stage),
            text(failed, |b| &b.error),
            nullable_text(failed, |b| b.text.as_deref()),
        ];
        let columns = vec![
            Arc::new(StringArray::from(vec![fragments])) as ArrayRef,
            one_list(document_fields(), document_columns, documents.len())?,
            Arc::new(UInt64Array::from(vec![self.chunks])),
            Arc::new(UInt64Array::from(vec![self.tokens])),
            one_list(quarantine_fields(), quarantine_columns, failed.len())?,
            Arc::new(StringArray::from(vec![fields])),
        ];
        RecordBatch::try_new(window_schema(), columns)
    }

    /// The windows of a batch of [`window_schema`].
    pub(crate) fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        if batch.schema().fields() != window_schema().fields() {
            let message = format!("expected columns {}, found {}", window_schema(), batch.schema());
            return Err(ArrowError::SchemaError(message));
        }
        (0..batch.num_rows()).map(|row| Self::from_row(batch, row)).collect()
    }

    fn from_row(batch: &RecordBatch, row: usize) -> Result<Self, ArrowError> {
        let fragments = serde_json::from_str(batch.column(0).as_string::<i32>().value(row))
            .map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let fields = serde_json::from_str(batch.column(5).as_string::<i32>().value(row))
            .map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let number = |column: usize| batch.column(column).as_primitive::<UInt64Type>().value(row);
        let documents = Rows(batch.column(1).as_list::<i32>().value(row));
        let failed = Rows(batch.column(4).as_list::<i32>().value(row));
        Ok(Self {
            fragments,
            fields,
            documents: (0..documents.len())
                .map(|i| Document {
                    doc_id: documents.text(0, i),
                    source: documents.text(1, i),
                    row: documents.number(2, i),
                })
                .collect(),
            chunks: number(2),
            tokens: number(3),
            quarantine: (0..failed.len())
                .map(|i| FailedDocument {
                    source: failed.text(0, i),
                    row: failed.number(1, i),
                    doc_id: failed.optional(2, i),
                    stage: failed.text(3, i),
                    error: failed.text(4, i),
                    text: failed.optional(5, i),
                })
                .collect(),
        })
    }
}

/// The structs of one list value.
struct Rows(ArrayRef);

impl Rows {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn text(&self, column: usize, row: usize) -> String {
        self.0.as_struct().column(column).as_string::<i32>().value(row).to_owned()
    }

    fn optional(&self, column: usize, row: usize) -> Option<String> {
        let values = self.0.as_struct().column(column);
        values.is_valid(row).then(|| self.text(column, row))
    }

    fn number(&self, column: usize, row: usize) -> u64 {
        self.0.as_struct().column(column).as_primitive::<UInt64Type>().value(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_survives_the_round_trip_through_a_batch() {
        let window = Window {
            fragments: vec![Fragment::new(0)],
            fields: vec![WrittenField { id: 3, path: "lang".into(), kind: "string".into() }],
            documents: vec![Document { doc_id: "a".into(), source: "corpus.csv".into(), row: 3 }],
            chunks: 2,
            tokens: 700,
            quarantine: vec![
                FailedDocument {
                    source: "corpus.csv".into(),
                    row: 4,
                    doc_id: None,
                    stage: "scan".into(),
                    error: "invalid utf-8".into(),
                    text: None,
                },
                FailedDocument {
                    source: "corpus.csv".into(),
                    row: 5,
                    doc_id: Some("b".into()),
                    stage: "encode".into(),
                    error: "refused".into(),
                    text: Some("é".into()),
                },
            ],
        };
        let back = Window::from_batch(&window.to_batch().unwrap()).unwrap();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].fragments, window.fragments);
        assert_eq!(back[0].fields, window.fields);
        assert_eq!(back[0].documents, window.documents);
        assert_eq!((back[0].chunks, back[0].tokens), (2, 700));
        assert_eq!(back[0].quarantine, window.quarantine);
    }
}
