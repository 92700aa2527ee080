//! Rows as the readers see them, and as the operators pass them on.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, StringBuilder, StructArray, UInt64Array,
        new_null_array,
    },
    buffer::NullBuffer,
    compute::concat,
    datatypes::{FieldRef, SchemaRef},
    error::ArrowError,
};
use polylance_schema::{ContentRule, Stage, columns::ERROR, error_fields};

use crate::content_hash::content_hashes;

/// Bytes of a refused row's text that are kept for the quarantine.
const KEPT_OF_REFUSED: usize = 64 << 10;

/// Rows of one file, as read. Columns have one length; `errors[row]` refuses a row.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) id: StringArray,
    pub(crate) text: StringArray,
    pub(crate) keep: Vec<ArrayRef>,
    /// Position of each row in its file.
    pub(crate) row: UInt64Array,
    pub(crate) errors: Vec<Option<String>>,
}

impl Rows {
    /// A row that stands for a file.
    pub(crate) fn of_file(keep: &[FieldRef], row: u64, error: String) -> Self {
        Self {
            id: StringArray::new_null(1),
            text: StringArray::new_null(1),
            keep: keep.iter().map(|field| new_null_array(field.data_type(), 1)).collect(),
            row: UInt64Array::from(vec![row]),
            errors: vec![Some(error)],
        }
    }

    /// Rows that the table has: without content, and so without hash and error.
    pub(crate) fn of_ids(id: StringArray, row: UInt64Array, keep: &[FieldRef]) -> Self {
        let count = id.len();
        Self {
            id,
            text: StringArray::new_null(count),
            keep: keep.iter().map(|field| new_null_array(field.data_type(), count)).collect(),
            row,
            errors: vec![None; count],
        }
    }

    /// Rows of one file, one after another, as one.
    pub(crate) fn concat(all: Vec<Self>) -> Result<Self, ArrowError> {
        let column = |of: &dyn Fn(&Self) -> &dyn Array| concat(&all.iter().map(of).collect::<Vec<_>>());
        let columns = all.first().map_or(0, |rows| rows.keep.len());
        Ok(Self {
            id: column(&|rows| &rows.id)?.as_string().clone(),
            text: column(&|rows| &rows.text)?.as_string().clone(),
            keep: (0..columns).map(|at| column(&|rows| &*rows.keep[at])).collect::<Result<_, _>>()?,
            row: column(&|rows| &rows.row)?.as_primitive().clone(),
            errors: all.iter().flat_map(|rows| rows.errors.iter().cloned()).collect(),
        })
    }

    /// Refuses rows that no model can embed: without id, without text, too long.
    pub(crate) fn checked(mut self, max_bytes: u64) -> Self {
        for (row, error) in self.errors.iter_mut().enumerate() {
            if error.is_none() {
                *error = refusal(&self.id, &self.text, row, max_bytes);
            }
        }
        if self.errors.iter().any(Option::is_some) {
            self.text = shortened(&self.text, &self.errors);
        }
        self
    }

    /// As a batch of `source_schema(keep)`.
    pub(crate) fn into_batch(
        self,
        rule: ContentRule,
        schema: &SchemaRef,
        source: &str,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = self.id.len();
        let good: BooleanArray = self.errors.iter().map(|error| Some(error.is_none())).collect();
        // A refused row has no hash, so that it never counts as a document that the table has.
        let hashed = arrow::compute::nullif(&self.text, &arrow::compute::not(&good)?)?;
        // The kept columns stand right after the id.
        let fields = &schema.fields()[1..=self.keep.len()];
        let hashes = content_hashes(rule, hashed.as_string(), fields, &self.keep)?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.id)];
        columns.extend(self.keep);
        columns.push(Arc::new(self.text));
        columns.push(Arc::new(hashes));
        columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(source, rows))));
        columns.push(Arc::new(self.row));
        columns.push(Arc::new(errors(Stage::Scan, &self.errors)));
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}

fn refusal(id: &StringArray, text: &StringArray, row: usize, max_bytes: u64) -> Option<String> {
    if id.is_null(row) {
        return Some("the id is null".into());
    }
    if id.value(row).is_empty() {
        return Some("the id is empty".into());
    }
    if text.is_null(row) {
        return Some("the text is null".into());
    }
    let value = text.value(row);
    if value.len() as u64 > max_bytes {
        return Some(format!("the text has {} bytes, more than `max_bytes` = {max_bytes} in [source]", value.len()));
    }
    value.trim().is_empty().then(|| "the text is empty".into())
}

/// The texts, those of refused rows cut to what the quarantine keeps.
fn shortened(text: &StringArray, errors: &[Option<String>]) -> StringArray {
    let short = |(value, error): (Option<&str>, &Option<String>)| {
        let value = value?;
        let end = if error.is_some() { value.floor_char_boundary(KEPT_OF_REFUSED) } else { value.len() };
        Some(value[..end].to_owned())
    };
    text.iter().zip(errors).map(short).collect()
}

/// The `_error` column.
pub(crate) fn errors(stage: Stage, errors: &[Option<String>]) -> StructArray {
    let stages = StringArray::from_iter_values(std::iter::repeat_n(stage.as_str(), errors.len()));
    let messages = StringArray::from_iter_values(errors.iter().map(|error| error.as_deref().unwrap_or_default()));
    let nulls: NullBuffer = errors.iter().map(Option::is_some).collect();
    StructArray::new(error_fields(), vec![Arc::new(stages), Arc::new(messages)], Some(nulls))
}

/// A batch in which the rows with a message are refused too, by `stage`; rows that were refused before keep their error.
pub(crate) fn with_errors(
    batch: &RecordBatch,
    stage: Stage,
    messages: &[Option<String>],
) -> Result<RecordBatch, ArrowError> {
    if messages.iter().all(Option::is_none) {
        return Ok(batch.clone());
    }
    let (at, _) = batch.schema_ref().column_with_name(ERROR).ok_or_else(|| missing(ERROR))?;
    let before = batch.column(at).as_struct();
    let (stages, texts) = (before.column(0).as_string::<i32>(), before.column(1).as_string::<i32>());
    let (mut new_stages, mut new_texts) = (StringBuilder::new(), StringBuilder::new());
    let mut valid = Vec::with_capacity(messages.len());
    for (row, message) in messages.iter().enumerate() {
        let (new_stage, text) = match message {
            Some(message) if before.is_null(row) => (stage.as_str(), message.as_str()),
            _ if before.is_null(row) => ("", ""),
            _ => (stages.value(row), texts.value(row)),
        };
        new_stages.append_value(new_stage);
        new_texts.append_value(text);
        valid.push(before.is_valid(row) || message.is_some());
    }
    let fields = error_fields();
    let column = StructArray::new(
        fields,
        vec![Arc::new(new_stages.finish()), Arc::new(new_texts.finish())],
        Some(NullBuffer::from(valid)),
    );
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(column);
    RecordBatch::try_new(batch.schema(), columns)
}

/// A column by name; the schema was checked when the plan was made.
pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    batch.column_by_name(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("no column {name}"))
}
