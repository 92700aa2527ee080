//! One JSON object per line. A line that is none is refused alone.

mod json;
mod values;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
};

use self::json::{Json, members};
use super::{
    columns::Columns,
    error::ReadError,
    format::Compression,
    lines,
    open_file::OpenFile,
    rows::RowStream,
    text_rows::TextRows,
    types::{ColumnType, FileTypes, TypeRequest, kind::ValueKind},
};

/// The lines from which the names of the columns are taken.
const SAMPLE_LINES: usize = 1000;
const SAMPLE_BYTES: usize = 4 << 20;
/// The bytes that a kept column takes in a row without it: each line of the sample may have columns of its own.
const COLUMN_BYTES: usize = 32;

pub(super) async fn types(
    file: &OpenFile,
    compression: Compression,
    request: &TypeRequest,
) -> Result<FileTypes, ReadError> {
    let mut reader = BufReader::new(lines::plain(file, compression).await?);
    let request = request.clone();
    lines::spawn_blocking_read(move |stopped| {
        let limit = if request.whole { line_limit(request.max_bytes) } else { SAMPLE_BYTES };
        let mut columns = ColumnKinds::default();
        let (mut lines, mut bytes, mut line) = (0, 0, Vec::new());
        let mut objects = 0;
        while request.whole || lines < SAMPLE_LINES && bytes < SAMPLE_BYTES {
            if stopped() {
                break;
            }
            let read = match read_line(&mut reader, &mut line, limit) {
                // The part before a read error is good.
                Err(_) if objects > 0 => break,
                read => read?,
            };
            match read {
                Line::End => break,
                Line::TooLong => {}
                Line::Whole => objects += usize::from(columns.add(&line, &request)),
            }
            bytes += line.len();
            lines += 1;
        }
        if objects == 0 {
            return Err(ReadError::Content("no line is a JSON object: write one object a line".into()));
        }
        Ok(columns.finish(&request))
    })
    .await
}

/// The columns of the objects read so far, and the kinds of their values.
#[derive(Default)]
struct ColumnKinds {
    columns: Vec<(String, ValueKind)>,
    positions: HashMap<String, usize>,
    /// Whether any value can be the id.
    has_id: bool,
    /// Whether any value can be the text.
    has_text: bool,
}

impl ColumnKinds {
    /// Adds the values of a line; false when it is no object.
    fn add(&mut self, line: &[u8], request: &TypeRequest) -> bool {
        let Ok(Some(line)) = plain_line(line) else { return false };
        members(line, |name, raw| {
            self.has_id |= name == request.id && (raw.starts_with('"') || is_whole(raw));
            self.has_text |= name == request.text && raw.starts_with('"');
            let kind = if request.keeps(&name) || name == request.id || name == request.text {
                Json::parse(raw).map_or(ValueKind::Mixed, |value| value.kind())
            } else {
                ValueKind::Null
            };
            if let Some(&at) = self.positions.get(&*name) {
                let known = &mut self.columns[at].1;
                *known = std::mem::take(known).join(kind);
            } else {
                self.positions.insert(name.to_string(), self.columns.len());
                self.columns.push((name.into_owned(), kind));
            }
        })
        .is_ok()
    }

    /// The type of each column. The id and the text are text if any of their values can be.
    fn finish(self, request: &TypeRequest) -> FileTypes {
        let column = |(name, kind): (String, ValueKind)| {
            let good = name == request.id && self.has_id || name == request.text && self.has_text;
            let kind = if good { ValueKind::Text } else { kind };
            (name, ColumnType::Json(kind))
        };
        self.columns.into_iter().map(column).collect()
    }
}

fn is_whole(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns, compression: Compression) -> Result<RowStream, ReadError> {
    let mut reader = BufReader::new(lines::plain(file, compression).await?);
    let columns = columns.clone();
    let limit = line_limit(columns.max_bytes);
    Ok(lines::spawn_rows(move |send| {
        let mut line = Vec::new();
        TextRows::read(&columns, values::column, send, |batch, send_if_full| {
            for number in 0.. {
                match read_line(&mut reader, &mut line, limit)? {
                    Line::End => break,
                    Line::TooLong => {
                        let message = format!("the line is longer than {limit} bytes, see `max_bytes` in [source]");
                        refuse(batch, number, message);
                    }
                    Line::Whole => push(batch, number, &line),
                }
                if !send_if_full(batch)? {
                    break;
                }
            }
            Ok(())
        })
    }))
}

/// The largest size of a line in bytes: a text may be six times as long with its escapes, and there are other fields.
fn line_limit(max_bytes: u64) -> usize {
    usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_mul(6).saturating_add(1 << 20)
}

enum Line {
    End,
    Whole,
    TooLong,
}

/// Reads a line without its end; a line over the limit is skipped.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>, limit: usize) -> std::io::Result<Line> {
    line.clear();
    if reader.by_ref().take((limit as u64).saturating_add(1)).read_until(b'\n', line)? == 0 {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > limit {
        line.clear();
        reader.skip_until(b'\n')?;
        return Ok(Line::TooLong);
    }
    Ok(Line::Whole)
}

/// A line without a byte order mark; `None` for a blank one.
fn plain_line(line: &[u8]) -> Result<Option<&str>, String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let line =
        str::from_utf8(line).map_err(|error| format!("invalid UTF-8 at byte {} of the line", error.valid_up_to()))?;
    Ok((!line.trim().is_empty()).then_some(line))
}

/// Adds a row without values.
fn add(batch: &mut TextRows<'_>, row: u64) {
    batch.rows.push(row);
    batch.ids.push(None);
    batch.texts.push(None);
    batch.keep.iter_mut().for_each(|column| column.push(None));
    batch.errors.push(None);
}

fn refuse(batch: &mut TextRows<'_>, row: u64, message: String) {
    add(batch, row);
    batch.errors.pop();
    batch.errors.push(Some(message));
}

fn push(batch: &mut TextRows<'_>, row: u64, line: &[u8]) {
    match plain_line(line) {
        Ok(None) => return,
        Ok(Some(line)) => {
            add(batch, row);
            let at = batch.rows.len() - 1;
            batch.errors[at] = fill(batch, at, line);
        }
        Err(message) => {
            refuse(batch, row, message);
            // The id may be in the valid part of the line.
            let at = batch.rows.len() - 1;
            let _not_good = fill(batch, at, &String::from_utf8_lossy(line));
            batch.texts[at] = None;
            batch.keep.iter_mut().for_each(|column| column[at] = None);
            batch.ids[at] = batch.ids[at].take().filter(|id| !id.contains(char::REPLACEMENT_CHARACTER));
        }
    }
    batch.bytes += line.len() + batch.columns.keep.len() * COLUMN_BYTES;
}

/// Fills a row from its line, and returns why the row is refused, if it is.
fn fill(batch: &mut TextRows<'_>, at: usize, line: &str) -> Option<String> {
    let columns = batch.columns;
    let mut error = None;
    let read = members(line, |name, raw| {
        // One column may be the id, the text and kept.
        if let Some(column) = columns.id.as_deref().filter(|column| *column == name) {
            batch.ids[at] = id(column, raw).unwrap_or_else(|message| {
                error = Some(message);
                None
            });
        }
        if let Some(column) = columns.text.as_deref().filter(|column| *column == name) {
            batch.texts[at] = text(column, raw).unwrap_or_else(|message| {
                error = Some(message);
                None
            });
        }
        for (field, column) in columns.keep.iter().zip(&mut batch.keep) {
            if *field.name() == *name {
                column[at] = Some(raw.to_owned());
            }
        }
    });
    match read {
        Ok(()) => error,
        Err(message) => Some(format!("not a JSON object: {message}")),
    }
}

fn id(column: &str, raw: &str) -> Result<Option<String>, String> {
    if is_whole(raw) {
        return Ok(Some(raw.to_owned()));
    }
    match Json::parse(raw)? {
        Json::Text(id) => Ok(Some(id.into_owned())),
        Json::Null => Ok(None),
        other => Err(format!("`{column}` is {}, expected text or a whole number", other.name())),
    }
}

fn text(column: &str, raw: &str) -> Result<Option<String>, String> {
    match Json::parse(raw)? {
        Json::Text(text) => Ok(Some(text.into_owned())),
        Json::Null => Ok(None),
        other => Err(format!("`{column}` is {}, expected text", other.name())),
    }
}
