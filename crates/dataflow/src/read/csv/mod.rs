//! Comma-separated values with a header line. A record that cannot be read costs itself only.

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
    types::{ColumnType, FileTypes, Wanted, exact, kind::Kind},
};
use crate::source::spec::CsvSpec;

pub(super) async fn types(
    file: &OpenFile,
    compression: Compression,
    given: CsvSpec,
    wanted: &Wanted,
) -> Result<FileTypes, ReadError> {
    let plain = lines::plain(file, compression).await?;
    let wanted = wanted.clone();
    lines::spawn_look(move |stopped| {
        let mut records = Records::new(plain, limit(wanted.max_bytes), given, [&wanted.id, &wanted.text])?;
        let names = header(&mut records)?;
        let mut kinds = vec![Kind::Null; names.len()];
        let looked_at: Vec<usize> = (0..names.len()).filter(|&at| wanted.keeps(&names[at])).collect();
        while wanted.whole && !looked_at.is_empty() && !stopped() {
            // What was read before the file broke off is good.
            let Ok(record) = records.read() else { break };
            match record {
                Record::End => break,
                Record::Whole if records.fields() == names.len() => {
                    for &at in &looked_at {
                        let kind = &mut kinds[at];
                        if *kind != Kind::Text && *kind != Kind::Mixed {
                            let field = String::from_utf8_lossy(records.field(at).unwrap_or_default());
                            *kind = std::mem::take(kind).join(Kind::of_field(&field));
                        }
                    }
                }
                Record::Whole | Record::TooLong | Record::Unclosed => {}
            }
        }
        Ok(names.into_iter().zip(kinds).map(|(name, kind)| (name, ColumnType::Fields(kind))).collect())
    })
    .await
}

/// Bytes of a record at most: other fields stand beside the text.
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

    /// `refusal` says why the record cannot be a row; its id may be read all the same.
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
