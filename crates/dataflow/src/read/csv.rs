//! Comma-separated values with a header line. A record that cannot be read costs itself only.

use std::{
    io::{self, Read},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, UInt64Array},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::common::runtime::SpawnedTask;

use super::{
    BATCH_BYTES, BATCH_ROWS, Columns, OpenFile, ReadError, RowStream, lines,
    records::{Record, Records},
};
use crate::{batches::Rows, format::Compression};

/// Records from which the columns' types are found.
const SAMPLE_RECORDS: usize = 1000;
/// Bytes of a record that is looked at for its types.
const SAMPLE_BYTES: usize = 1 << 20;

pub(super) async fn schema(file: &OpenFile, compression: Compression) -> Result<SchemaRef, ReadError> {
    let plain = lines::plain(file, compression).await?;
    let schema = SpawnedTask::spawn_blocking(move || {
        let mut records = Records::new(plain, SAMPLE_BYTES);
        let names = header(&mut records)?;
        let mut kinds = vec![Kind::Unknown; names.len()];
        for _ in 0..SAMPLE_RECORDS {
            match records.read()? {
                Record::End => break,
                Record::TooLong => {}
                Record::Whole => {
                    for (at, kind) in kinds.iter_mut().enumerate() {
                        *kind = kind.seen(&String::from_utf8_lossy(records.field(at).unwrap_or_default()));
                    }
                }
            }
        }
        let fields = names.into_iter().zip(kinds).map(|(name, kind)| Field::new(name, kind.data_type(), true));
        Ok::<_, ReadError>(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    });
    schema.await.map_err(io::Error::other)?
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns, compression: Compression) -> Result<RowStream, ReadError> {
    let plain = lines::plain(file, compression).await?;
    let columns = columns.clone();
    // Other fields stand beside the text.
    let limit = usize::try_from(columns.max_bytes).unwrap_or(usize::MAX).saturating_add(1 << 20);
    Ok(lines::spawn_rows(move |send| {
        let mut records = Records::new(plain, limit);
        let names = header(&mut records)?;
        let position = |name: &str| {
            let at = names.iter().position(|column| column == name);
            at.ok_or_else(|| ReadError::Content(format!("the file has no column `{name}`")))
        };
        let (id, text) = (position(&columns.id)?, position(&columns.text)?);
        let keep = columns.keep.iter().map(|field| position(field.name())).collect::<Result<Vec<_>, _>>()?;
        let mut batch = Batch::new(&columns);
        let mut fill = |batch: &mut Batch<'_>, send: &mut dyn FnMut(Rows) -> bool| {
            for number in 0.. {
                match records.read()? {
                    Record::End => break,
                    Record::TooLong => batch.refuse(number, limit),
                    Record::Whole => batch.push(number, &records, names.len(), (id, text), &keep),
                }
                if batch.is_full() && !send(batch.finish()?) {
                    break;
                }
            }
            Ok(())
        };
        let filled = fill(&mut batch, send);
        // What was read before the file broke off is good.
        if !batch.rows.is_empty() {
            send(batch.finish()?);
        }
        filled
    }))
}

fn header(records: &mut Records<impl Read>) -> Result<Vec<String>, ReadError> {
    let Record::Whole = records.read()? else {
        return Err(ReadError::Content("the file has no header line".into()));
    };
    let name = |at| {
        let name = str::from_utf8(records.field(at).unwrap_or_default());
        name.map(str::to_owned)
            .map_err(|_| ReadError::Content(format!("invalid UTF-8 in field {} of the header", at + 1)))
    };
    (0..records.fields()).map(name).collect()
}

/// The narrowest type that all values seen so far have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Int,
    Float,
    Bool,
    Text,
}

impl Kind {
    fn seen(self, value: &str) -> Self {
        // `007` and `+1` are codes that a number would change; `nan` and `inf` are words.
        let number = value.strip_prefix('-').unwrap_or(value);
        let padded =
            number.starts_with('+') || number.len() > 1 && number.starts_with('0') && !number.starts_with("0.");
        let digits = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let fits = |kind: Self| match kind {
            Self::Unknown => value.is_empty(),
            Self::Int => !padded && value.parse::<i64>().is_ok(),
            Self::Float => digits && !padded && value.parse::<f64>().is_ok(),
            Self::Bool => matches!(value, "true" | "false"),
            Self::Text => true,
        };
        let wider: &[Self] = match self {
            Self::Unknown => &[Self::Unknown, Self::Int, Self::Float, Self::Bool],
            Self::Int => &[Self::Int, Self::Float],
            Self::Float => &[Self::Float],
            Self::Bool => &[Self::Bool],
            Self::Text => &[],
        };
        if value.is_empty() { self } else { wider.iter().copied().find(|&kind| fits(kind)).unwrap_or(Self::Text) }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Unknown | Self::Text => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Bool => DataType::Boolean,
        }
    }
}

/// Records on their way into a batch.
struct Batch<'a> {
    columns: &'a Columns,
    rows: Vec<u64>,
    ids: Vec<Option<String>>,
    texts: Vec<Option<String>>,
    keep: Vec<Vec<Option<String>>>,
    errors: Vec<Option<String>>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(columns: &'a Columns) -> Self {
        let keep = vec![Vec::new(); columns.keep.len()];
        let (rows, ids, texts, errors) = Default::default();
        Self { columns, rows, ids, texts, keep, errors, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Bytes that a row takes even where all its fields are empty: a short line may stand under a long header.
    fn room(&self) -> usize {
        self.keep.len() * size_of::<Option<String>>()
    }

    fn refuse(&mut self, row: u64, limit: usize) {
        self.bytes += self.room();
        let advice = "an unclosed quote, or see `max_bytes` in [source]";
        self.rows.push(row);
        self.ids.push(None);
        self.texts.push(None);
        self.keep.iter_mut().for_each(|column| column.push(None));
        self.errors.push(Some(format!("the record is longer than {limit} bytes ({advice})")));
    }

    fn push(
        &mut self,
        row: u64,
        record: &Records<impl Read>,
        fields: usize,
        (id, text): (usize, usize),
        keep: &[usize],
    ) {
        let found = record.fields();
        let mut error = (found != fields).then(|| format!("expected {fields} fields, found {found}"));
        let mut value = |at: usize| -> Option<String> {
            let bytes = record.field(at).filter(|bytes| !bytes.is_empty())?;
            if let Ok(value) = str::from_utf8(bytes) {
                return Some(value.to_owned());
            }
            error.get_or_insert_with(|| format!("invalid UTF-8 in field {}", at + 1));
            None
        };
        let (id, text) = (value(id), value(text));
        for (column, &at) in self.keep.iter_mut().zip(keep) {
            column.push(value(at));
        }
        self.bytes += record.len() + self.room();
        self.rows.push(row);
        self.ids.push(id);
        self.texts.push(text);
        self.errors.push(error);
    }

    fn finish(&mut self) -> Result<Rows, ArrowError> {
        let batch = Self::new(self.columns);
        let mut done = std::mem::replace(self, batch);
        let mut keep: Vec<ArrayRef> = Vec::with_capacity(done.keep.len());
        for (field, values) in done.columns.keep.iter().zip(done.keep) {
            let text: ArrayRef = Arc::new(StringArray::from_iter(values));
            let typed = cast(&text, field.data_type())?;
            for (row, error) in done.errors.iter_mut().enumerate() {
                if error.is_none() && typed.is_null(row) && text.is_valid(row) {
                    let value = text.as_string::<i32>().value(row);
                    *error = Some(format!("`{}` is {value:?}, expected {}", field.name(), field.data_type()));
                }
            }
            keep.push(typed);
        }
        Ok(Rows {
            id: StringArray::from_iter(done.ids),
            text: StringArray::from_iter(done.texts),
            keep,
            row: UInt64Array::from(done.rows),
            errors: done.errors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_the_narrowest_type_of_its_values() {
        for (values, expected) in [
            (&["1", "", "-2"][..], DataType::Int64),
            (&["1", "2.5", "-0.5e3"], DataType::Float64),
            (&["true", "false"], DataType::Boolean),
            (&["1", "true"], DataType::Utf8),
            (&["007", "1"], DataType::Utf8),
            (&["+1"], DataType::Utf8),
            (&["nan", "inf"], DataType::Utf8),
            (&["0", "0.5"], DataType::Float64),
            (&["", ""], DataType::Utf8),
        ] {
            let kind = values.iter().fold(Kind::Unknown, |kind, value| kind.seen(value));
            assert_eq!(kind.data_type(), expected, "{values:?}");
        }
    }
}
