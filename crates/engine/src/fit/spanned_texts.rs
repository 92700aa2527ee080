//! Reads texts with a column of spans.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::UInt64Type,
    error::ArrowError,
    json::{WriterBuilder, writer::LineDelimited},
};
use datafusion::{execution::TaskContext, physical_plan::ExecutionPlan};
use futures::TryStreamExt;
use polylance_dataflow::{Source, SourceScanExec, SourceSpec};
use polylance_fit::{FitError, LabeledSpan, LabeledSpans};
use polylance_schema::columns::{ERROR, MESSAGE, SOURCE, SOURCE_ROW, TEXT};
use serde::Deserialize;

use super::Result;

/// A text with its entities.
#[derive(Debug)]
pub(crate) struct SpannedText {
    pub(crate) text: String,
    pub(crate) spans: LabeledSpans,
}

/// The usable texts of a source, and the number of others.
#[derive(Debug, Default)]
pub(crate) struct SpannedTexts {
    pub(crate) texts: Vec<SpannedText>,
    /// Rows whose spans are null: not labelled. An empty list is a text without entities.
    pub(crate) without_label: usize,
    /// Rows that are unreadable, or whose spans do not fit their text.
    pub(crate) refused: usize,
    /// The place and the error of the first of them.
    pub(crate) first_refused: Option<String>,
}

/// A cell of the column: a list, or the same list as JSON text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Cell {
    Json(String),
    Spans(Vec<LabeledSpan>),
}

#[derive(Deserialize)]
struct Row {
    spans: Option<Cell>,
}

/// Reads the texts of a source whose one kept column has the spans. Duplicate texts are read once.
///
/// # Errors
/// If the source cannot be opened, or none of its rows is usable.
pub(crate) async fn read(spec: SourceSpec) -> Result<SpannedTexts> {
    let name = spec.address();
    let column = spec.keep.first().cloned().unwrap_or_default();
    let scan = SourceScanExec::new(Source::open(spec).await?);
    let mut batches = scan.execute(0, Arc::new(TaskContext::default()))?;
    let (mut read, mut seen) = (SpannedTexts::default(), HashSet::new());
    while let Some(batch) = batches.try_next().await? {
        add(&mut read, &mut seen, &batch, &column)?;
    }
    match (&read.first_refused, read.texts.is_empty()) {
        (Some(first), true) => Err(FitError::Data(format!("no row is usable: {first}")).into()),
        (None, true) => Err(FitError::Data(format!("no row of {name} has spans in its column {column}")).into()),
        _ => Ok(read),
    }
}

fn add(read: &mut SpannedTexts, seen: &mut HashSet<String>, batch: &RecordBatch, column: &str) -> Result<()> {
    let column_of = |name: &str| Ok::<_, ArrowError>(batch.column(batch.schema_ref().index_of(name)?));
    let (text, source) = (column_of(TEXT)?.as_string::<i32>(), column_of(SOURCE)?.as_string::<i32>());
    let (position, errors) = (column_of(SOURCE_ROW)?.as_primitive::<UInt64Type>(), column_of(ERROR)?.as_struct());
    let messages = errors.column_by_name(MESSAGE).map(AsArray::as_string::<i32>);
    // The column's type depends on the source. Encoded as JSON, lists of any integer type and JSON texts are read
    // alike.
    let spans = RecordBatch::try_from_iter_with_nullable([("spans", Arc::clone(column_of(column)?), true)])?;
    let lines = json_lines(&spans)?;
    for (row, line) in lines.split(|byte| *byte == b'\n').take(batch.num_rows()).enumerate() {
        let spans = if errors.is_valid(row) {
            Err(messages.map_or_else(String::new, |messages| messages.value(row).to_owned()))
        } else {
            parse(line).and_then(|spans| spans.map(|spans| LabeledSpans::new(text.value(row), spans)).transpose())
        };
        match spans {
            Ok(None) => read.without_label += 1,
            Ok(Some(spans)) => {
                if seen.insert(text.value(row).to_owned()) {
                    read.texts.push(SpannedText { text: text.value(row).to_owned(), spans });
                }
            }
            Err(message) => {
                read.refused += 1;
                let location = || format!("{}, row {}: {message}", source.value(row), position.value(row));
                read.first_refused.get_or_insert_with(location);
            }
        }
    }
    Ok(())
}

/// A JSON object for each row, nulls included.
fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// The spans of a line `{"spans": …}`; `None` where they are null.
fn parse(line: &[u8]) -> Result<Option<Vec<LabeledSpan>>, String> {
    let wrong = "the spans are not a list of objects with label, start and end, counted in characters";
    let row: Row = serde_json::from_slice(line).map_err(|_| wrong.to_owned())?;
    match row.spans {
        None => Ok(None),
        Some(Cell::Spans(spans)) => Ok(Some(spans)),
        Some(Cell::Json(json)) => serde_json::from_str(&json).map_err(|error| format!("{wrong}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_and_json_text_give_the_same_spans() {
        let span = LabeledSpan { label: "PER".into(), start: 0, end: 3 };
        let list = br#"{"spans": [{"label": "PER", "score": 0.5, "start": 0, "end": 3, "text": "Ada"}]}"#;
        let json = br#"{"spans": "[{\"label\": \"PER\", \"start\": 0, \"end\": 3}]"}"#;
        assert_eq!(parse(list).unwrap(), Some(vec![span]));
        assert_eq!(parse(json).unwrap(), parse(list).unwrap());
        assert_eq!(parse(b"{}").unwrap(), None);
        assert_eq!(parse(br#"{"spans": "null"}"#).unwrap(), None);
        assert_eq!(parse(br#"{"spans": []}"#).unwrap(), Some(vec![]));
        let refused = |line: &str| assert!(parse(line.as_bytes()).unwrap_err().contains("label, start and end"));
        refused(r#"{"spans": 7}"#);
        refused(r#"{"spans": [{"label": "PER", "start": -1, "end": 3}]}"#);
        refused(r#"{"spans": "[{\"label\": \"PER\"}]"}"#);
    }
}
