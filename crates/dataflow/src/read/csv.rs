//! Comma-separated values with a header line. A record that cannot be read costs itself only.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, UInt64Array},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use csv::{ByteRecord, ReaderBuilder};
use datafusion::common::runtime::SpawnedTask;

use super::{BATCH_BYTES, BATCH_ROWS, Columns, OpenFile, ReadError, RowStream, lines};
use crate::{batches::Rows, format::Compression};

/// Records from which the columns' types are found.
const SAMPLE_RECORDS: usize = 1000;

impl From<csv::Error> for ReadError {
    fn from(error: csv::Error) -> Self {
        Self::Content(error.to_string())
    }
}

pub(super) async fn schema(file: &OpenFile, compression: Compression) -> Result<SchemaRef, ReadError> {
    let plain = lines::plain(file, compression).await?;
    let schema = SpawnedTask::spawn_blocking(move || {
        let mut reader = reader(plain);
        let names = header(&mut reader)?;
        let mut kinds = vec![Kind::Unknown; names.len()];
        let mut record = ByteRecord::new();
        for _ in 0..SAMPLE_RECORDS {
            if !reader.read_byte_record(&mut record)? {
                break;
            }
            for (kind, value) in kinds.iter_mut().zip(&record) {
                *kind = kind.seen(&String::from_utf8_lossy(value));
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
    // A text may be twice as long with its quotes.
    let limit = 2 * columns.max_bytes + (1 << 20);
    Ok(lines::spawn_rows(move |send| {
        let since = Rc::new(Cell::new(0));
        let mut reader = reader(Limited { inner: plain, since: Rc::clone(&since), limit });
        let names = header(&mut reader)?;
        let position = |name: &str| {
            let at = names.iter().position(|column| column == name);
            at.ok_or_else(|| ReadError::Content(format!("the file has no column `{name}`")))
        };
        let (id, text) = (position(&columns.id)?, position(&columns.text)?);
        let keep = columns.keep.iter().map(|field| position(field.name())).collect::<Result<Vec<_>, _>>()?;
        let mut batch = Batch::new(&columns);
        let mut record = ByteRecord::new();
        let mut fill = |batch: &mut Batch<'_>, send: &mut dyn FnMut(Rows) -> bool| {
            for number in 0.. {
                since.set(0);
                if !reader.read_byte_record(&mut record)? {
                    break;
                }
                batch.push(number, &record, names.len(), (id, text), &keep);
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

fn reader<R: Read>(plain: R) -> csv::Reader<R> {
    ReaderBuilder::new().flexible(true).from_reader(plain)
}

fn header(reader: &mut csv::Reader<impl Read>) -> Result<Vec<String>, ReadError> {
    let header = reader.headers()?;
    Ok(header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect())
}

/// Ends a file whose record grows without end, as one with a quote that is never closed does.
struct Limited<R> {
    inner: R,
    since: Rc<Cell<u64>>,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.get() > self.limit {
            let message = format!(
                "a record is longer than {} bytes (an unclosed quote, or see `max_bytes` in [source]): the rest is not read",
                self.limit
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let read = self.inner.read(buffer)?;
        self.since.set(self.since.get() + read as u64);
        Ok(read)
    }
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
        let fits = |kind: Self| match kind {
            Self::Unknown => value.is_empty(),
            Self::Int => value.parse::<i64>().is_ok(),
            Self::Float => value.parse::<f64>().is_ok(),
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

    fn push(&mut self, row: u64, record: &ByteRecord, fields: usize, (id, text): (usize, usize), keep: &[usize]) {
        let mut error = (record.len() != fields).then(|| format!("expected {fields} fields, found {}", record.len()));
        let mut value = |at: usize| -> Option<String> {
            let bytes = record.get(at).filter(|bytes| !bytes.is_empty())?;
            match str::from_utf8(bytes) {
                Ok(value) => Some(value.to_owned()),
                Err(_) => {
                    error.get_or_insert_with(|| format!("invalid UTF-8 in field {}", at + 1));
                    None
                }
            }
        };
        let (id, text) = (value(id), value(text));
        for (column, &at) in self.keep.iter_mut().zip(keep) {
            column.push(value(at));
        }
        self.bytes += text.as_ref().map_or(0, String::len);
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
