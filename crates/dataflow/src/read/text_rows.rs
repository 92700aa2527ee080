//! The rows of a batch while they are read from a format that is text: values have no types yet.

use std::mem::replace;

use arrow::{
    array::{ArrayRef, StringArray, UInt64Array},
    datatypes::FieldRef,
    error::ArrowError,
};

use super::{
    columns::Columns,
    error::ReadError,
    rows::{BATCH_BYTES, BATCH_ROWS, Rows},
};

/// Rows whose values are the text of the file.
pub(super) struct TextRows<'a> {
    pub(super) columns: &'a Columns,
    /// Position of each row in its file.
    pub(super) rows: Vec<u64>,
    pub(super) ids: Vec<Option<String>>,
    pub(super) texts: Vec<Option<String>>,
    /// The values of each kept column as written.
    pub(super) keep: Vec<Vec<Option<String>>>,
    pub(super) errors: Vec<Option<String>>,
    /// The memory that the rows take, about.
    pub(super) bytes: usize,
}

/// Makes an array of a kept column's type from its text. A row whose value does not fit gets an error.
pub(super) type ReadColumn = fn(&FieldRef, &[Option<String>], &mut [Option<String>]) -> Result<ArrayRef, ArrowError>;

impl<'a> TextRows<'a> {
    pub(super) fn new(columns: &'a Columns) -> Self {
        let keep = vec![Vec::new(); columns.keep.len()];
        let (rows, ids, texts, errors) = Default::default();
        Self { columns, rows, ids, texts, keep, errors, bytes: 0 }
    }

    /// Reads until `fill` returns, which sends each full batch. Then sends the rest: rows before a read error are good.
    pub(super) fn read(
        columns: &'a Columns,
        column: ReadColumn,
        send: &mut dyn FnMut(Rows) -> bool,
        fill: impl FnOnce(&mut Self, &mut dyn FnMut(&mut Self) -> Result<bool, ReadError>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let mut batch = Self::new(columns);
        let filled = fill(&mut batch, &mut |batch| Ok(!batch.is_full() || send(batch.finish(column)?)));
        if !batch.rows.is_empty() {
            send(batch.finish(column)?);
        }
        filled
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn finish(&mut self, column: ReadColumn) -> Result<Rows, ArrowError> {
        let empty = Self::new(self.columns);
        let mut done = replace(self, empty);
        let kept = self.columns.keep.iter().zip(&done.keep);
        let keep = kept.map(|(field, text)| column(field, text, &mut done.errors)).collect::<Result<_, _>>()?;
        Ok(Rows {
            id: StringArray::from_iter(done.ids),
            text: StringArray::from_iter(done.texts),
            keep,
            row: UInt64Array::from(done.rows),
            errors: done.errors,
        })
    }
}
