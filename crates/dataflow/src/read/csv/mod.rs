//! Comma-separated values with a header line. A record that cannot be read is refused alone.

mod dialect;
mod records;

use std::{io::Read, sync::Arc};

use arrow::{
    array::{ArrayRef, StringArray, UInt64Array},
    error::ArrowError,
};

use self::records::{Record, Records};
use super::{
    columns::Columns,
    error::ReadError,
    format::Compression,
    lines,
    open_file::OpenFile,
    rows::{BATCH_BYTES, BATCH_ROWS, RowStream, Rows},
    types::{ColumnType, FileTypes, TypeRequest, exact, kind::ValueKind},
};
use crate::source::spec::CsvSpec;

pub(super) async fn types(
    file: &OpenFile,
    compression: Compression,
    given: CsvSpec,
    request: &TypeRequest,
) -> Result<FileTypes, ReadError> {
    let plain = lines::plain(file, compression).await?;
    let request = request.clone();
    lines::spawn_blocking_read(move |stopped| {
        let mut records = Records::new(plain, limit(request.max_bytes), given, [&request.id, &request.text])?;
        let names = header(&mut records)?;
        let mut kinds = vec![ValueKind::Null; names.len()];
        let inferred: Vec<usize> = (0..names.len()).filter(|&at| request.keeps(&names[at])).collect();
        while request.whole && !inferred.is_empty() && !stopped() {
            // The part before a read error is good.
            let Ok(record) = records.read() else { break };
            match record {
                Record::End => break,
                Record::Whole if records.fields() == names.len() => {
                    for &at in &inferred {
                        let kind = &mut kinds[at];
                        if *kind != ValueKind::Text && *kind != ValueKind::Mixed {
                            let field = String::from_utf8_lossy(records.field(at).unwrap_or_default());
                            *kind = std::mem::take(kind).join(ValueKind::of_csv_field(&field));
                        }
                    }
                }
                Record::Whole | Record::TooLong | Record::Unclosed => {}
            }
        }
        Ok(names.into_iter().zip(kinds).map(|(name, kind)| (name, ColumnType::Csv(kind))).collect())
    })
    .await
}

/// The largest size of a record in bytes: it has other fields in addition to the text.
fn limit(max_bytes: u64) -> usize {
    usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_add(1 << 20)
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns, compression: Compression) -> Result<RowStream, ReadError> {
    let plain = lines::plain(file, compression).await?;
    let columns = columns.clone();
    let limit = limit(columns.max_bytes);
    Ok(lines::spawn_rows(move |send| {
        let mut records = Records::new(plain, limit, columns.csv, [&columns.id, &columns.text])?;
        let names = header(&mut records)?;
        let position = |name: &str| {
            let mut found = names.iter().enumerate().filter(|(_, column)| *column == name).map(|(at, _)| at);
            let first = found.next();
            match found.next() {
                Some(_) => Err(ReadError::Content(format!("the file has more than one column `{name}`"))),
                None => Ok(first),
            }
        };
        let needed =
            |name: &str| position(name)?.ok_or_else(|| ReadError::Content(format!("the file has no column `{name}`")));
        let (id, text) = (needed(&columns.id)?, needed(&columns.text)?);
        let keep = columns.keep.iter().map(|field| position(field.name())).collect::<Result<Vec<_>, _>>()?;
        let mut batch = Batch::new(&columns);
        let mut fill = |batch: &mut Batch<'_>, send: &mut dyn FnMut(Rows) -> bool| {
            for number in 0.. {
                let error = match records.read()? {
                    Record::End => break,
                    Record::TooLong => {
                        Some(format!("the record is longer than {limit} bytes, see `max_bytes` in [source]"))
                    }
                    Record::Unclosed => Some("a quote is never closed".to_owned()),
                    Record::Whole => None,
                };
                batch.push(number, &records, error, names.len(), (id, text), &keep);
                if batch.is_full() && !send(batch.finish()?) {
                    break;
                }
            }
            Ok(())
        };
        let filled = fill(&mut batch, send);
        // The part before a read error is good.
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

/// The records of the next batch.
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

    /// The bytes that a row takes even if all its fields are empty: a header may have more fields than a line.
    fn row_bytes(&self) -> usize {
        self.keep.len() * size_of::<Option<String>>()
    }

    /// Adds a record. With `refusal` it becomes a refused row, which may still have its id.
    fn push(
        &mut self,
        row: u64,
        record: &Records<impl Read>,
        refusal: Option<String>,
        fields: usize,
        (id, text): (usize, usize),
        keep: &[Option<usize>],
    ) {
        let found = record.fields();
        let whole = refusal.is_none();
        let mut error =
            refusal.or_else(|| (found != fields).then(|| format!("expected {fields} fields, found {found}")));
        let mut value = |at: usize| -> Option<String> {
            let bytes = record.field(at).filter(|bytes| !bytes.is_empty())?;
            if let Ok(value) = str::from_utf8(bytes) {
                return Some(value.to_owned());
            }
            error.get_or_insert_with(|| format!("invalid UTF-8 in field {}", at + 1));
            None
        };
        let (id, text) = (value(id), if whole { value(text) } else { None });
        for (column, at) in self.keep.iter_mut().zip(keep) {
            column.push(at.filter(|_| whole).and_then(&mut value));
        }
        self.bytes += record.len() + self.row_bytes();
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
            keep.push(exact::column(field.name(), &text, field.data_type(), &mut done.errors)?);
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
