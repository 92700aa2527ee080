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
    span_merge::{ChunkSpans, MergeAdjacent, merge},
};
use crate::batches::column;

/// Sets where annotations begin in their document, and merges its spans over the borders of its chunks.
pub(crate) fn locate(batch: &RecordBatch, spec: &TaskSpec, rows: &mut [AnnotatedRow]) -> Result<()> {
    let starts = column(batch, CHAR_START)?.as_primitive::<UInt64Type>();
    let ends = column(batch, CHAR_END)?.as_primitive::<UInt64Type>();
    let TaskSpec::Ner { aggregation } = spec else {
        for (row, start) in rows.iter_mut().zip(starts.values()) {
            row.offset = *start;
        }
        return Ok(());
    };
    let adjacent = if *aggregation == Aggregation::None { MergeAdjacent::No } else { MergeAdjacent::Yes };
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
        let merged = merge(chunks.collect(), adjacent);
        for (row, merged) in document.zip(merged) {
            if let Some(Annotation::Spans(spans)) = &mut rows[row].annotation {
                *spans = merged;
            }
        }
    }
    Ok(())
}

/// The rows of each document.
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
