//! The rows of one file, as a reader yields them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array, new_null_array},
    compute::{concat, filter},
    datatypes::{FieldRef, SchemaRef},
    error::ArrowError,
};
use futures::stream::BoxStream;
use polylance_schema::{ContentRule, Stage};

use super::error::ReadError;
use crate::{batches::errors, content_hash::content_hashes};

/// The largest number of rows in a batch.
pub(crate) const BATCH_ROWS: usize = 1024;
/// The approximate bytes of text in a batch.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

pub(crate) type RowStream = BoxStream<'static, Result<Rows, ReadError>>;

/// The bytes of a refused row's text that are kept for the quarantine.
const MAX_REFUSED_TEXT_BYTES: usize = 64 << 10;

/// Rows of one file. All columns have one length; `errors[row]` refuses a row.
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
    /// A refused row that stands for a file, or for the rest of one from `row` on.
    pub(crate) fn refused_file(keep: &[FieldRef], row: u64, error: String) -> Self {
        Self {
            id: StringArray::new_null(1),
            text: StringArray::new_null(1),
            keep: keep.iter().map(|field| new_null_array(field.data_type(), 1)).collect(),
            row: UInt64Array::from(vec![row]),
            errors: vec![Some(error)],
        }
    }

    /// Rows of an unchanged file: they have neither content nor hash nor error.
    pub(crate) fn ids_only(id: StringArray, row: UInt64Array, keep: &[FieldRef]) -> Self {
        let count = id.len();
        Self {
            id,
            text: StringArray::new_null(count),
            keep: keep.iter().map(|field| new_null_array(field.data_type(), count)).collect(),
            row,
            errors: vec![None; count],
        }
    }

    /// Concatenates rows of one file.
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

    /// The rows for which `kept` is true.
    pub(crate) fn filter(mut self, kept: &BooleanArray) -> Result<Self, ArrowError> {
        let mut is_kept = kept.values().iter();
        self.errors.retain(|_| is_kept.next().unwrap_or_default());
        Ok(Self {
            id: filter(&self.id, kept)?.as_string().clone(),
            text: filter(&self.text, kept)?.as_string().clone(),
            keep: self.keep.iter().map(|array| filter(array, kept)).collect::<Result<_, _>>()?,
            row: filter(&self.row, kept)?.as_primitive().clone(),
            errors: self.errors,
        })
    }

    /// Refuses rows that no model can embed: without id, without text, or too long.
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

    /// A batch of `source_schema(keep)`.
    pub(crate) fn into_batch(
        self,
        rule: ContentRule,
        schema: &SchemaRef,
        source: &str,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = self.id.len();
        let good: BooleanArray = self.errors.iter().map(|error| Some(error.is_none())).collect();
        // A refused row has no hash, so that the anti-join never takes it for a document of the table.
        let hashed = arrow::compute::nullif(&self.text, &arrow::compute::not(&good)?)?;
        // The kept columns follow the id.
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

/// The texts; those of refused rows are cut to what the quarantine keeps.
fn shortened(text: &StringArray, errors: &[Option<String>]) -> StringArray {
    let short = |(value, error): (Option<&str>, &Option<String>)| {
        let value = value?;
        let end = if error.is_some() { value.floor_char_boundary(MAX_REFUSED_TEXT_BYTES) } else { value.len() };
        Some(value[..end].to_owned())
    };
    text.iter().zip(errors).map(short).collect()
}
