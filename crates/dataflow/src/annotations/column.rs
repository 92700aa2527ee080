//! Annotations as Arrow columns.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Array, ListArray, StringArray, StructArray, UInt32Array, UInt64Array, new_null_array},
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::DataType,
};
use datafusion::error::{DataFusionError, Result};
use polylance_backend::{Annotation, Answer, LabelScore, Span, TokenScore};
use polylance_schema::{Scores, TaskSpec};

/// A row's annotation, and what is needed to make a value of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnnotatedRow {
    /// Where the text of the annotation begins, in characters of the document.
    pub(crate) offset: u64,
    /// The choices, where the task has them.
    pub(crate) choices: Vec<String>,
    /// `None`: the row stays without a value.
    pub(crate) annotation: Option<Annotation>,
}

/// The column of a task: one value per row, with offsets in the document.
///
/// # Errors
/// When an annotation is not of the task's kind, which is a defect of the backend.
pub(crate) fn column(spec: &TaskSpec, rows: &[AnnotatedRow]) -> Result<ArrayRef> {
    let data_type = spec.column_type().ok_or_else(|| wrong(spec))?;
    let values = rows.iter().map(|row| value(spec, row)).collect::<Result<Vec<_>>>()?;
    array(&data_type, &values.iter().map(Option::as_ref).collect::<Vec<_>>())
}

fn wrong(spec: &TaskSpec) -> DataFusionError {
    DataFusionError::Internal(format!("the annotation does not fit the task {}", spec.name()))
}

fn value<'a>(spec: &TaskSpec, row: &'a AnnotatedRow) -> Result<Option<Value<'a>>> {
    let Some(annotation) = &row.annotation else { return Ok(None) };
    Ok(match (spec, annotation) {
        (TaskSpec::Classify { scores }, Annotation::Labels(labels)) => labels.first().map(|best| {
            let mut fields = scored(&best.label, best.score);
            if *scores == Scores::All {
                fields.push(labelled(labels));
            }
            Value::Struct(fields)
        }),
        (TaskSpec::ZeroShot { .. }, Annotation::Labels(labels)) => Some(labelled(labels)),
        (TaskSpec::Ner { .. }, Annotation::Spans(spans)) => {
            Some(Value::List(spans.iter().map(|found| span(found, row.offset)).collect()))
        }
        (TaskSpec::Qa { top_k: 0 | 1, .. }, Annotation::Answers(answers)) => {
            answers.first().map(|best| answer(best, row.offset))
        }
        (TaskSpec::Qa { .. }, Annotation::Answers(answers)) => {
            Some(Value::List(answers.iter().map(|found| answer(found, row.offset)).collect()))
        }
        (TaskSpec::FillMask { .. }, Annotation::Masks(masks)) => {
            let tokens = |tokens: &'a Vec<TokenScore>| {
                Value::List(tokens.iter().map(|found| Value::Struct(scored(&found.token, found.score))).collect())
            };
            Some(Value::List(masks.iter().map(tokens).collect()))
        }
        (TaskSpec::Generate(_), Annotation::Text(text)) => Some(Value::Text(text)),
        (TaskSpec::Choose, Annotation::Choices(scores)) => choice(scores, &row.choices),
        _ => return Err(wrong(spec)),
    })
}

fn scored(name: &str, score: f32) -> Vec<Value<'_>> {
    vec![Value::Text(name), Value::Float(score)]
}

fn labelled(labels: &[LabelScore]) -> Value<'_> {
    Value::List(labels.iter().map(|found| Value::Struct(scored(&found.label, found.score))).collect())
}

fn span(span: &Span, offset: u64) -> Value<'_> {
    let mut fields = scored(&span.label, span.score);
    fields.extend([Value::Number(offset + span.chars.start), Value::Number(offset + span.chars.end)]);
    fields.push(Value::Text(&span.text));
    Value::Struct(fields)
}

fn answer(answer: &Answer, offset: u64) -> Value<'_> {
    let mut fields = scored(&answer.text, answer.score);
    fields.extend([Value::Number(offset + answer.chars.start), Value::Number(offset + answer.chars.end)]);
    Value::Struct(fields)
}

/// The first of the best choices.
fn choice<'a>(scores: &[f32], choices: &'a [String]) -> Option<Value<'a>> {
    let best = (0..scores.len()).rev().max_by(|a, b| scores[*a].total_cmp(&scores[*b]))?;
    let all = Value::List(scores.iter().map(|score| Value::Float(*score)).collect());
    Some(Value::Struct(vec![Value::Text(choices.get(best)?), Value::Number(best as u64), all]))
}

/// A value of one of the types of annotation columns.
#[derive(Debug)]
enum Value<'a> {
    Text(&'a str),
    Float(f32),
    Number(u64),
    Struct(Vec<Self>),
    List(Vec<Self>),
}

/// Values as an array of a type; a value of another shape is null.
fn array(data_type: &DataType, values: &[Option<&Value<'_>>]) -> Result<ArrayRef> {
    let number = |value: Option<&Value<'_>>| match value {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    let valid = || values.iter().map(Option::is_some).collect::<NullBuffer>();
    Ok(match data_type {
        DataType::Utf8 => {
            let text = |value: Option<&Value<'_>>| match value {
                Some(Value::Text(text)) => Some((*text).to_owned()),
                _ => None,
            };
            Arc::new(values.iter().copied().map(text).collect::<StringArray>())
        }
        DataType::Float32 => {
            let float = |value: Option<&Value<'_>>| match value {
                Some(Value::Float(float)) => Some(*float),
                _ => None,
            };
            Arc::new(values.iter().copied().map(float).collect::<Float32Array>())
        }
        DataType::UInt32 => {
            Arc::new(values.iter().copied().map(|v| number(v).map(|n| n as u32)).collect::<UInt32Array>())
        }
        DataType::UInt64 => Arc::new(values.iter().copied().map(number).collect::<UInt64Array>()),
        DataType::Struct(fields) => {
            let columns =
                fields.iter().enumerate().map(|(at, field)| array(field.data_type(), &nth_fields(values, at)));
            Arc::new(StructArray::try_new(fields.clone(), columns.collect::<Result<_>>()?, Some(valid()))?)
        }
        DataType::List(item) => {
            let items: Vec<&[Value<'_>]> = values.iter().map(|value| items(*value)).collect();
            let offsets = OffsetBuffer::from_lengths(items.iter().map(|items| items.len()));
            let flat: Vec<_> = items.into_iter().flatten().map(Some).collect();
            let child = array(item.data_type(), &flat)?;
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, child, Some(valid()))?)
        }
        other => new_null_array(other, values.len()),
    })
}

/// Field `at` of each struct.
fn nth_fields<'v, 'a>(values: &[Option<&'v Value<'a>>], at: usize) -> Vec<Option<&'v Value<'a>>> {
    let field = |value: Option<&'v Value<'a>>| match value {
        Some(Value::Struct(parts)) => parts.get(at),
        _ => None,
    };
    values.iter().copied().map(field).collect()
}

/// The items of a list.
fn items<'v, 'a>(value: Option<&'v Value<'a>>) -> &'v [Value<'a>] {
    match value {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array, RecordBatch},
        json::LineDelimitedWriter,
    };
    use polylance_schema::{Aggregation, Generation};

    use super::*;

    fn json(spec: &TaskSpec, rows: &[AnnotatedRow]) -> Vec<serde_json::Value> {
        let column = column(spec, rows).unwrap();
        assert_eq!(Some(column.data_type()), spec.column_type().as_ref());
        let batch = RecordBatch::try_from_iter_with_nullable([("value", column, true)]).unwrap();
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&batch).unwrap();
        let lines = String::from_utf8(writer.into_inner()).unwrap();
        lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["value"].clone()).collect()
    }

    fn row(annotation: Annotation) -> AnnotatedRow {
        AnnotatedRow { offset: 100, choices: vec!["tea".into(), "milk".into()], annotation: Some(annotation) }
    }

    fn labels() -> Annotation {
        let label = |label: &str, score| LabelScore { label: label.to_owned(), score };
        Annotation::Labels(vec![label("sports", 0.75), label("news", 0.25)])
    }

    #[test]
    fn a_class_is_a_struct_and_all_classes_are_a_list_in_it() {
        let best = json(&TaskSpec::Classify { scores: Scores::Best }, &[row(labels()), AnnotatedRow::default()]);
        assert_eq!(best, [serde_json::json!({"label": "sports", "score": 0.75}), serde_json::Value::Null]);
        let all = json(&TaskSpec::Classify { scores: Scores::All }, &[row(labels())]);
        assert_eq!(all[0]["scores"][1], serde_json::json!({"label": "news", "score": 0.25}));
    }

    #[test]
    fn offsets_are_characters_of_the_document() {
        let spans = |spans| row(Annotation::Spans(spans));
        let ada = Span { label: "PER".into(), score: 0.5, chars: 2..5, text: "Ada".into(), continues: false };
        let found = json(&TaskSpec::Ner { aggregation: Aggregation::Simple }, &[spans(vec![ada]), spans(vec![])]);
        let expected = serde_json::json!([{"label": "PER", "score": 0.5, "start": 102, "end": 105, "text": "Ada"}]);
        assert_eq!(found, [expected, serde_json::json!([])]);
    }

    #[test]
    fn several_answers_are_a_list_and_one_is_not() {
        let qa = |top_k| TaskSpec::Qa {
            top_k,
            max_answer_tokens: 15,
            doc_stride: 128,
            null_answer: false,
            align_to_words: true,
        };
        let answer = Answer { text: "tea".into(), score: 0.5, chars: 0..3 };
        let rows = [row(Annotation::Answers(vec![answer]))];
        let expected = serde_json::json!({"answer": "tea", "score": 0.5, "start": 100, "end": 103});
        assert_eq!(json(&qa(2), &rows), [serde_json::json!([&expected])]);
        assert_eq!(json(&qa(1), &rows), [expected]);
    }

    #[test]
    fn masks_texts_and_choices_have_their_shapes() {
        let token = TokenScore { token: "tea".into(), score: 0.5 };
        let masks = json(&TaskSpec::FillMask { top_k: 1 }, &[row(Annotation::Masks(vec![vec![token]]))]);
        assert_eq!(masks[0], serde_json::json!([[{"token": "tea", "score": 0.5}]]));
        let text = json(&TaskSpec::Generate(Generation::default()), &[row(Annotation::Text("tea".into()))]);
        assert_eq!(text[0], "tea");
        let choice = json(&TaskSpec::Choose, &[row(Annotation::Choices(vec![0.5, 0.5]))]);
        assert_eq!(choice[0], serde_json::json!({"choice": "tea", "index": 0, "scores": [0.5, 0.5]}));
    }

    #[test]
    fn an_annotation_of_another_kind_is_an_error() {
        assert!(column(&TaskSpec::Choose, &[row(labels())]).is_err());
    }
}
