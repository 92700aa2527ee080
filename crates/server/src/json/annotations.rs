//! Results of heads as JSON.

use polylance_backend::{AnnotateInput, Annotated, Annotation, Answer, LabelScore, Span, TokenScore};
use serde_json::{Value, json};

use crate::redact::redact_message;

/// The result for one input; `{"error": …}` if the head refuses it.
pub(crate) fn annotation(input: &AnnotateInput, result: Annotated) -> Value {
    match result {
        Err(message) => json!({ "error": redact_message(&message) }),
        Ok(Annotation::Labels(labels)) => json!({ "labels": all(&labels, label) }),
        Ok(Annotation::Spans(spans)) => json!({ "spans": all(&spans, span) }),
        Ok(Annotation::Answers(answers)) => json!({ "answers": all(&answers, answer) }),
        Ok(Annotation::Masks(masks)) => json!({ "masks": all(&masks, |tokens| all(tokens, token).into()) }),
        Ok(Annotation::Text(text)) => json!({ "text": text }),
        Ok(Annotation::Choices(scores)) => {
            let choice = |(choice, score): (&String, &f32)| json!({ "choice": choice, "score": score });
            json!({ "choices": input.choices.iter().zip(&scores).map(choice).collect::<Vec<_>>() })
        }
        Ok(Annotation::Relevance(score)) => json!({ "score": score }),
    }
}

fn all<T>(items: &[T], one: impl Fn(&T) -> Value) -> Vec<Value> {
    items.iter().map(one).collect()
}

fn label(label: &LabelScore) -> Value {
    json!({ "label": label.label, "score": label.score })
}

fn span(span: &Span) -> Value {
    let Span { label, score, chars, text, .. } = span;
    json!({ "label": label, "score": score, "start": chars.start, "end": chars.end, "text": text })
}

fn answer(answer: &Answer) -> Value {
    let Answer { text, score, chars } = answer;
    json!({ "answer": text, "score": score, "start": chars.start, "end": chars.end })
}

fn token(token: &TokenScore) -> Value {
    json!({ "token": token.token, "score": token.score })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_has_its_fields() {
        let input = AnnotateInput { choices: vec!["a".into(), "b".into()], ..AnnotateInput::default() };
        let span = Span { label: "PER".into(), score: 0.5, chars: 1..4, text: "Ada".into(), continues: false };
        let answer = Answer { text: "Ada".into(), score: 0.5, chars: 1..4 };
        let label = LabelScore { label: "x".into(), score: 1.0 };
        let token = TokenScore { token: "sea".into(), score: 0.5 };
        for (result, json) in [
            (Ok(Annotation::Labels(vec![label])), json!({ "labels": [{ "label": "x", "score": 1.0 }] })),
            (
                Ok(Annotation::Spans(vec![span])),
                json!({ "spans": [{ "label": "PER", "score": 0.5, "start": 1, "end": 4, "text": "Ada" }] }),
            ),
            (
                Ok(Annotation::Answers(vec![answer])),
                json!({ "answers": [{ "answer": "Ada", "score": 0.5, "start": 1, "end": 4 }] }),
            ),
            (
                Ok(Annotation::Masks(vec![vec![token], vec![]])),
                json!({ "masks": [[{ "token": "sea", "score": 0.5 }], []] }),
            ),
            (Ok(Annotation::Text("x".into())), json!({ "text": "x" })),
            (
                Ok(Annotation::Choices(vec![0.25, 0.75])),
                json!({ "choices": [{ "choice": "a", "score": 0.25 }, { "choice": "b", "score": 0.75 }] }),
            ),
            (Ok(Annotation::Relevance(0.5)), json!({ "score": 0.5 })),
            (Err("it is empty".into()), json!({ "error": "it is empty" })),
        ] {
            assert_eq!(annotation(&input, result), json);
        }
    }
}
