//! One JSON object a line. A line that is not one costs itself only.

use std::{
    io::{BufRead, BufReader, Read},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, StringArray, UInt64Array},
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    json::{ReaderBuilder, reader::infer_json_schema_from_iterator},
};
use datafusion::common::runtime::SpawnedTask;
use serde_json::{Map, Value};

use super::{BATCH_BYTES, BATCH_ROWS, Columns, OpenFile, ReadError, RowStream, lines};
use crate::{batches::Rows, format::Compression};

/// Lines from which the columns' types are found.
const SAMPLE_LINES: usize = 1000;
const SAMPLE_BYTES: usize = 4 << 20;
/// Bytes that a kept column takes in a row that does not have it: each line of the sample may bring columns of its own.
const COLUMN_BYTES: usize = 16;

pub(super) async fn schema(file: &OpenFile, compression: Compression) -> Result<SchemaRef, ReadError> {
    let mut reader = BufReader::new(lines::plain(file, compression).await?);
    let sample = SpawnedTask::spawn_blocking(move || {
        let (mut sample, mut bytes, mut line) = (Vec::new(), 0, Vec::new());
        while sample.len() < SAMPLE_LINES && bytes < SAMPLE_BYTES {
            match read_line(&mut reader, &mut line, SAMPLE_BYTES)? {
                Line::End => break,
                Line::TooLong => {}
                Line::Whole => sample.extend(parse(&line).ok().flatten().map(Value::Object)),
            }
            bytes += line.len();
        }
        Ok::<_, ReadError>(sample)
    });
    let sample = sample.await.map_err(std::io::Error::other)??;
    if sample.is_empty() {
        return Err(ReadError::Content("no line is a JSON object".into()));
    }
    Ok(Arc::new(infer_json_schema_from_iterator(sample.into_iter().map(Ok::<_, ArrowError>))?))
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns, compression: Compression) -> Result<RowStream, ReadError> {
    let mut reader = BufReader::new(lines::plain(file, compression).await?);
    let columns = columns.clone();
    let limit = line_limit(columns.max_bytes);
    Ok(lines::spawn_rows(move |send| {
        let mut batch = Batch::new(&columns);
        let mut line = Vec::new();
        let mut fill = |batch: &mut Batch<'_>, send: &mut dyn FnMut(Rows) -> bool| {
            for number in 0.. {
                match read_line(&mut reader, &mut line, limit)? {
                    Line::End => break,
                    Line::TooLong => {
                        let message = format!("the line is longer than {limit} bytes, see `max_bytes` in [source]");
                        batch.refuse(number, message);
                    }
                    Line::Whole => match parse(&line) {
                        Ok(None) => {}
                        Ok(Some(object)) => {
                            batch.push(number, object);
                            batch.bytes += line.len() + columns.keep.len() * COLUMN_BYTES;
                        }
                        Err(message) => batch.refuse(number, message),
                    },
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

/// Bytes of a line at most: a text may be six times as long with its escapes, and other fields stand beside it.
fn line_limit(max_bytes: u64) -> usize {
    usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_mul(6).saturating_add(1 << 20)
}

enum Line {
    End,
    Whole,
    TooLong,
}

/// Reads a line without its end; of a line over the limit nothing is kept.
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

/// The object of a line; `None` for a blank one.
fn parse(line: &[u8]) -> Result<Option<Map<String, Value>>, String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let line =
        str::from_utf8(line).map_err(|error| format!("invalid UTF-8 at byte {} of the line", error.valid_up_to()))?;
    if line.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(line).map(Some).map_err(|error| format!("not a JSON object: {error}"))
}

/// Rows on their way into a batch.
struct Batch<'a> {
    columns: &'a Columns,
    rows: Vec<u64>,
    ids: Vec<Option<String>>,
    texts: Vec<Option<String>>,
    /// What is left of the objects: the kept columns are in here.
    objects: Vec<Map<String, Value>>,
    errors: Vec<Option<String>>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(columns: &'a Columns) -> Self {
        let (rows, ids, texts, objects, errors) = Default::default();
        Self { columns, rows, ids, texts, objects, errors, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn refuse(&mut self, row: u64, message: String) {
        self.rows.push(row);
        self.ids.push(None);
        self.texts.push(None);
        self.objects.push(Map::new());
        self.errors.push(Some(message));
    }

    fn push(&mut self, row: u64, mut object: Map<String, Value>) {
        let columns = self.columns;
        // The same column may be the id, the text and kept.
        let mut take = |name: &str| match object.get_mut(name) {
            Some(value) if columns.keep.iter().any(|field| field.name() == name) => Some(value.clone()),
            Some(value) => Some(value.take()),
            None => None,
        };
        let (id, text) = (take(&columns.id), take(&columns.text));
        let mut error = None;
        let id = match id {
            Some(Value::String(id)) => Some(id),
            Some(Value::Number(id)) if !id.is_f64() => Some(id.to_string()),
            None | Some(Value::Null) => None,
            Some(other) => {
                error = Some(format!("`{}` is {}, expected text or a whole number", columns.id, kind(&other)));
                None
            }
        };
        let text = match text {
            Some(Value::String(text)) => Some(text),
            None | Some(Value::Null) => None,
            Some(other) => {
                error = Some(format!("`{}` is {}, expected text", columns.text, kind(&other)));
                None
            }
        };
        self.rows.push(row);
        self.ids.push(id);
        self.texts.push(text);
        self.objects.push(object);
        self.errors.push(error);
    }

    fn finish(&mut self) -> Result<Rows, ArrowError> {
        let keep = self.keep()?;
        let batch = Self::new(self.columns);
        let done = std::mem::replace(self, batch);
        Ok(Rows {
            id: StringArray::from_iter(done.ids),
            text: StringArray::from_iter(done.texts),
            keep,
            row: UInt64Array::from(done.rows),
            errors: done.errors,
        })
    }

    /// The kept columns; a row whose value has another type than the sample is refused.
    fn keep(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.columns.keep.is_empty() {
            return Ok(Vec::new());
        }
        let schema = Arc::new(Schema::new(self.columns.keep.clone()));
        let decode = |objects: &[Map<String, Value>]| {
            let mut decoder = ReaderBuilder::new(Arc::clone(&schema))
                .with_coerce_primitive(true)
                .with_batch_size(objects.len())
                .build_decoder()?;
            decoder.serialize(objects)?;
            decoder.flush()
        };
        let mut decoded = decode(&self.objects);
        if decoded.is_err() {
            for (object, error) in self.objects.iter_mut().zip(&mut self.errors) {
                if let Err(message) = decode(std::slice::from_ref(object)) {
                    error.get_or_insert(format!("a kept column has another type than in the first lines: {message}"));
                    object.clear();
                }
            }
            decoded = decode(&self.objects);
        }
        Ok(decoded?.map(|batch| batch.columns().to_vec()).unwrap_or_default())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
