//! Comma-separated values with a header line. A record that cannot be read is refused alone.

mod dialect;
mod records;

use std::{io::Read, sync::Arc};

use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::FieldRef,
    error::ArrowError,
};

use self::records::{Record, Records};
use super::{
    columns::Columns,
    error::ReadError,
    format::Compression,
    lines,
    open_file::OpenFile,
    rows::RowStream,
    text_rows::TextRows,
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
        let mut records = Records::new(plain, limit(request.max_bytes), given, &request.header)?;
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
        let mut records = Records::new(plain, limit, columns.csv, &columns.header)?;
        let names = header(&mut records)?;
        let position = |name: &str| {
            let mut found = names.iter().enumerate().filter(|(_, column)| *column == name).map(|(at, _)| at);
            let first = found.next();
            match found.next() {
                Some(_) => Err(ReadError::Content(format!("the file has more than one column `{name}`"))),
                None => Ok(first),
            }
        };
        let needed = |name: &Option<String>| {
            let Some(name) = name else { return Ok(None) };
            let missing = || ReadError::Content(format!("the file has no column `{name}`"));
            position(name)?.map(Some).ok_or_else(missing)
        };
        let (id, text) = (needed(&columns.id)?, needed(&columns.text)?);
        let keep = columns.keep.iter().map(|field| position(field.name())).collect::<Result<Vec<_>, _>>()?;
        TextRows::read(&columns, typed_column, send, |batch, send_if_full| {
            for number in 0.. {
                let error = match records.read()? {
                    Record::End => break,
                    Record::TooLong => {
                        Some(format!("the record is longer than {limit} bytes, see `max_bytes` in [source]"))
                    }
                    Record::Unclosed => Some("a quote is never closed".to_owned()),
                    Record::Whole => None,
                };
                push(batch, number, &records, error, names.len(), (id, text), &keep);
                if !send_if_full(batch)? {
                    break;
                }
            }
            Ok(())
        })
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

/// Adds a record. With `refusal` it becomes a refused row, which may still have its id.
fn push(
    batch: &mut TextRows<'_>,
    row: u64,
    record: &Records<impl Read>,
    refusal: Option<String>,
    fields: usize,
    (id, text): (Option<usize>, Option<usize>),
    keep: &[Option<usize>],
) {
    let found = record.fields();
    let whole = refusal.is_none();
    let mut error = refusal.or_else(|| (found != fields).then(|| format!("expected {fields} fields, found {found}")));
    let mut value = |at: usize| -> Option<String> {
        let bytes = record.field(at).filter(|bytes| !bytes.is_empty())?;
        if let Ok(value) = str::from_utf8(bytes) {
            return Some(value.to_owned());
        }
        error.get_or_insert_with(|| format!("invalid UTF-8 in field {}", at + 1));
        None
    };
    // With another number of fields, values may be those of other columns: only the first is in its place. Without an
    // id column, the text may be an input of the id; otherwise it is only shown in the quarantine.
    let in_place = whole && found == fields;
    let has_text = if id.is_some() { whole } else { in_place };
    let id = id.filter(|at| in_place || *at == 0).and_then(&mut value);
    let text = text.filter(|_| has_text).and_then(&mut value);
    for (column, at) in batch.keep.iter_mut().zip(keep) {
        column.push(at.filter(|_| in_place).and_then(&mut value));
    }
    // A header may have more fields than a line, and each takes room even if it is empty.
    batch.bytes += record.len() + batch.keep.len() * size_of::<Option<String>>();
    batch.rows.push(row);
    batch.ids.push(id);
    batch.texts.push(text);
    batch.errors.push(error);
}

fn typed_column(
    field: &FieldRef,
    text: &[Option<String>],
    errors: &mut [Option<String>],
) -> Result<ArrayRef, ArrowError> {
    let text: ArrayRef = Arc::new(text.iter().map(Option::as_deref).collect::<StringArray>());
    exact::column(field.name(), &text, field.data_type(), errors)
}
