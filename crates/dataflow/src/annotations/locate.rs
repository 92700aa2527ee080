//! Annotations of chunks as annotations of their document.

use std::ops::Range;

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray},
    datatypes::UInt64Type,
};
use datafusion::error::Result;
use polylance_backend::Annotation;
use polylance_schema::{
    Aggregation, TaskSpec,
    columns::{CHAR_END, CHAR_START, DOC_ID, TEXT},
};

use super::{
    column::AnnotatedRow,
    span_merge::{self, ChunkSpans, Halves},
};
use crate::batches::column;

/// Gives annotations their place in the document; spans of one document are joined over the borders of its chunks.
pub(crate) fn place(batch: &RecordBatch, spec: &TaskSpec, rows: &mut [AnnotatedRow]) -> Result<()> {
    let starts = column(batch, CHAR_START)?.as_primitive::<UInt64Type>();
    let ends = column(batch, CHAR_END)?.as_primitive::<UInt64Type>();
    let TaskSpec::Ner { aggregation } = spec else {
        for (row, start) in rows.iter_mut().zip(starts.values()) {
            row.from = *start;
        }
        return Ok(());
    };
    let halves = if *aggregation == Aggregation::None { Halves::Apart } else { Halves::Joined };
    let texts = column(batch, TEXT)?.as_string::<i32>();
    for document in documents(column(batch, DOC_ID)?.as_string()) {
        let chunks = document.clone().map(|row| ChunkSpans {
            chars: starts.value(row)..ends.value(row),
            text: texts.value(row),
            spans: match &mut rows[row].annotation {
                Some(Annotation::Spans(spans)) => std::mem::take(spans),
                _ => Vec::new(),
            },
        });
        let joined = span_merge::join(chunks.collect(), halves);
        for (row, joined) in document.zip(joined) {
            if let Some(Annotation::Spans(spans)) = &mut rows[row].annotation {
                *spans = joined;
            }
        }
    }
    Ok(())
}

/// Rows of one document each.
fn documents(ids: &StringArray) -> Vec<Range<usize>> {
    let mut documents: Vec<Range<usize>> = Vec::new();
    for row in 0..ids.len() {
        let same = row > 0 && ids.is_valid(row) && ids.is_valid(row - 1) && ids.value(row) == ids.value(row - 1);
        match documents.last_mut() {
            Some(document) if same => document.end = row + 1,
            _ => documents.push(row..row + 1),
        }
    }
    documents
}
