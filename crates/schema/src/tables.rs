//! Arrow schemas of the table, of the quarantine, and of the batches between operators.
//!
//! Each stage appends columns: source, tokenized, encoded. The kept columns follow `doc_id` at every stage.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use crate::columns::{
    CHAR_END, CHAR_START, CHUNK, CONTENT_HASH, DOC_ID, EMBEDDING, ERROR, INPUT_IDS, MESSAGE, N_TOKENS, ROW_ADDRESS,
    RUN_ID, SOURCE, SOURCE_ROW, STAGE, TEXT, TRUNCATED,
};

/// Whether the table stores the chunk's text with its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextColumn {
    /// Stored: hits show their text, and full-text search is possible.
    #[default]
    Kept,
    /// Not stored: readers join with the corpus by `doc_id` and character offsets.
    LeftOut,
}

fn field(name: &str, data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, data_type, nullable))
}

fn embedding(dim: usize, nullable: bool) -> FieldRef {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    field(EMBEDDING, DataType::FixedSizeList(item, dim as i32), nullable)
}

/// Fields of the [`ERROR`] struct.
pub fn error_fields() -> Fields {
    Fields::from(vec![field(STAGE, DataType::Utf8, false), field(MESSAGE, DataType::Utf8, false)])
}

fn trailer() -> [FieldRef; 4] {
    [
        field(CONTENT_HASH, DataType::FixedSizeBinary(16), true),
        field(SOURCE, DataType::Utf8, false),
        field(SOURCE_ROW, DataType::UInt64, false),
        field(ERROR, DataType::Struct(error_fields()), true),
    ]
}

/// The output of the scan, one row per document: `doc_id, …keep, text, content_hash, _source, _row, _error`.
///
/// A row whose `_error` is set may lack its id, text and hash.
pub fn source_schema(keep: &[FieldRef]) -> SchemaRef {
    let mut fields = vec![field(DOC_ID, DataType::Utf8, true)];
    fields.extend_from_slice(keep);
    fields.push(field(TEXT, DataType::Utf8, true));
    fields.extend(trailer());
    Arc::new(Schema::new(fields))
}

/// The kept columns of a batch between operators: those after `doc_id` and before the columns of its stage.
pub fn kept_fields(schema: &Schema) -> &[FieldRef] {
    let fields = schema.fields();
    let first = fields.iter().position(|field| field.name() == DOC_ID).map_or(0, |at| at + 1);
    let own = |field: &FieldRef| [TEXT, CHUNK].contains(&field.name().as_str());
    let end = fields.iter().skip(first).position(own).map_or(first, |kept| first + kept);
    &fields[first..end]
}

fn chunk_fields(keep: &[FieldRef]) -> Vec<FieldRef> {
    let mut fields = vec![field(DOC_ID, DataType::Utf8, true)];
    fields.extend_from_slice(keep);
    fields.extend([
        field(CHUNK, DataType::UInt32, false),
        field(CHAR_START, DataType::UInt64, false),
        field(CHAR_END, DataType::UInt64, false),
        field(TEXT, DataType::Utf8, true),
        field(N_TOKENS, DataType::UInt32, false),
        field(TRUNCATED, DataType::Boolean, false),
    ]);
    fields
}

/// The output of `TokenizeExec`, one row per chunk:
/// `doc_id, …keep, chunk, char_start, char_end, text, n_tokens, truncated, _input_ids, content_hash, _source, _row, _error`.
pub fn tokenized_schema(keep: &[FieldRef]) -> SchemaRef {
    let mut fields = chunk_fields(keep);
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    fields.push(field(INPUT_IDS, DataType::List(item), true));
    fields.extend(trailer());
    Arc::new(Schema::new(fields))
}

/// The output of `EncodeExec`: the tokenized columns with `embedding` in place of `_input_ids`.
pub fn encoded_schema(keep: &[FieldRef], dim: usize) -> SchemaRef {
    let mut fields = chunk_fields(keep);
    fields.push(embedding(dim, true));
    fields.extend(trailer());
    Arc::new(Schema::new(fields))
}

/// A schema followed by the columns of the heads that are computed in the embedding's pass.
pub fn with_heads(schema: &SchemaRef, heads: &[FieldRef]) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().chain(heads).map(Arc::clone).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The table itself:
/// `doc_id, …keep, chunk, char_start, char_end, [text,] n_tokens, truncated, embedding, content_hash, run_id`.
pub fn table_schema(keep: &[FieldRef], dim: usize, text: TextColumn) -> SchemaRef {
    let mut fields = vec![field(DOC_ID, DataType::Utf8, false)];
    fields.extend_from_slice(keep);
    fields.extend([
        field(CHUNK, DataType::UInt32, false),
        field(CHAR_START, DataType::UInt64, false),
        field(CHAR_END, DataType::UInt64, false),
    ]);
    if text == TextColumn::Kept {
        fields.push(field(TEXT, DataType::Utf8, false));
    }
    fields.extend([
        field(N_TOKENS, DataType::UInt32, false),
        field(TRUNCATED, DataType::Boolean, false),
        embedding(dim, false),
        field(CONTENT_HASH, DataType::FixedSizeBinary(16), false),
        field(RUN_ID, DataType::Utf8, false),
    ]);
    Arc::new(Schema::new(fields))
}

/// The columns of the table that the anti-join reads: `doc_id, content_hash`.
pub fn key_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field(DOC_ID, DataType::Utf8, false),
        field(CONTENT_HASH, DataType::FixedSizeBinary(16), false),
    ]))
}

/// The input of an annotation, one row per chunk of the table: `_rowaddr, doc_id, char_start, char_end, text, …inputs`.
pub fn chunk_schema(inputs: &[FieldRef]) -> SchemaRef {
    let mut fields = vec![
        field(ROW_ADDRESS, DataType::UInt64, false),
        field(DOC_ID, DataType::Utf8, false),
        field(CHAR_START, DataType::UInt64, false),
        field(CHAR_END, DataType::UInt64, false),
        field(TEXT, DataType::Utf8, false),
    ];
    fields.extend_from_slice(inputs);
    Arc::new(Schema::new(fields))
}

/// The output of `AnnotateExec`: `_rowaddr, doc_id, text, <column>, _error`.
///
/// The column is null in a row with an error.
pub fn annotated_schema(column: &Field) -> SchemaRef {
    Arc::new(Schema::new(vec![
        field(ROW_ADDRESS, DataType::UInt64, false),
        field(DOC_ID, DataType::Utf8, false),
        field(TEXT, DataType::Utf8, false),
        Arc::new(column.clone()),
        field(ERROR, DataType::Struct(error_fields()), true),
    ]))
}

/// The quarantine table: `source, row, doc_id, stage, error, attempts, at, run_id, text`.
pub fn quarantine_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("source", DataType::Utf8, false),
        field("row", DataType::UInt64, false),
        field(DOC_ID, DataType::Utf8, true),
        field(STAGE, DataType::Utf8, false),
        field("error", DataType::Utf8, false),
        field("attempts", DataType::UInt32, false),
        field("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        field(RUN_ID, DataType::Utf8, false),
        field(TEXT, DataType::Utf8, true),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_fields_finds_the_kept_columns_of_every_stage() {
        let keep = [field("lang", DataType::Utf8, true), field("year", DataType::Int64, true)];
        for schema in [source_schema(&keep), tokenized_schema(&keep), encoded_schema(&keep, 8)] {
            assert_eq!(kept_fields(&schema), keep);
        }
        assert!(kept_fields(&source_schema(&[])).is_empty());
    }

    fn keep() -> Vec<FieldRef> {
        vec![field("lang", DataType::Utf8, true)]
    }

    #[test]
    fn encoding_replaces_only_the_token_ids() {
        let names = |schema: &Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
        let tokenized = names(&tokenized_schema(&keep()));
        let encoded = names(&encoded_schema(&keep(), 4));
        assert_eq!(tokenized.len(), encoded.len());
        let differing: Vec<_> = tokenized.iter().zip(&encoded).filter(|(a, b)| a != b).collect();
        assert_eq!(differing, [(&INPUT_IDS.to_string(), &EMBEDDING.to_string())]);
    }

    #[test]
    fn underscore_columns_are_not_in_the_table() {
        for text in [TextColumn::Kept, TextColumn::LeftOut] {
            let schema = table_schema(&keep(), 4, text);
            assert!(schema.fields().iter().all(|f| !f.name().starts_with('_')));
            assert_eq!(schema.field_with_name(TEXT).is_ok(), text == TextColumn::Kept);
        }
    }
}
