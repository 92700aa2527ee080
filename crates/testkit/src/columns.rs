//! Columns of a head's answers, as a run writes them.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Array, ListArray, StringArray, StructArray, UInt64Array},
    buffer::OffsetBuffer,
    datatypes::{DataType, FieldRef, Fields},
};
use polylance_schema::{Aggregation, Scores, TaskSpec};

/// The class of each row, with its score.
///
/// # Panics
/// When the numbers of labels and scores differ.
pub fn classes(labels: &[&str], scores: Vec<f32>) -> StructArray {
    let Some(DataType::Struct(fields)) = (TaskSpec::Classify { scores: Scores::Best }).column_type() else {
        unreachable!("a class is a struct");
    };
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(labels.to_vec())), Arc::new(Float32Array::from(scores))];
    StructArray::new(fields, columns, None)
}

/// The spans of each row, as `(first character, text)`, all with one label and the score 1.
pub fn spans(label: &str, rows: &[Vec<(u64, &str)>]) -> ListArray {
    let (item, fields) = span_fields();
    let all = || rows.iter().flatten();
    let n = all().count();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![label; n])),
        Arc::new(Float32Array::from(vec![1.0; n])),
        Arc::new(all().map(|(start, _)| Some(*start)).collect::<UInt64Array>()),
        Arc::new(all().map(|(start, text)| Some(start + text.chars().count() as u64)).collect::<UInt64Array>()),
        Arc::new(all().map(|(_, text)| Some(*text)).collect::<StringArray>()),
    ];
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    ListArray::new(item, offsets, Arc::new(StructArray::new(fields, columns, None)), None)
}

fn span_fields() -> (FieldRef, Fields) {
    if let Some(DataType::List(item)) = (TaskSpec::Ner { aggregation: Aggregation::Simple }).column_type()
        && let DataType::Struct(fields) = item.data_type()
    {
        let fields = fields.clone();
        return (item, fields);
    }
    unreachable!("spans are a list of structs")
}
