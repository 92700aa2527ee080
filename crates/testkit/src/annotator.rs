//! A head without a model: its answer is a simple function of the text.

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{
    AnnotateInput, Annotated, Annotation, Annotator, Answer, LabelScore, Result, Span, TokenScore,
};
use polylance_schema::TaskSpec;

use crate::refused::REFUSED;

/// The fake head. It refuses a text that contains [`FakeBackend::REFUSED`](crate::FakeBackend::REFUSED).
///
/// - classify, zero-shot: the label `short` under 40 characters, else `long`, with a score of 0.75 and 0.25;
/// - ner: each word that begins with an upper case letter is a span `NAME`, which `continues` if the text begins with it;
/// - qa: the first word; fill-mask: `mask` for each `<mask>`; generate: the text backwards; choose: the longest choice.
#[derive(Debug)]
pub struct FakeAnnotator {
    spec: TaskSpec,
}

impl FakeAnnotator {
    /// A head for this task.
    pub fn new(spec: TaskSpec) -> Self {
        Self { spec }
    }

    pub(crate) fn annotation(&self, input: &AnnotateInput) -> Annotated {
        let text = &input.text;
        if text.contains(REFUSED) {
            return Err("the fake head refuses this text".to_owned());
        }
        Ok(match &self.spec {
            TaskSpec::Classify { .. } | TaskSpec::ZeroShot { .. } => {
                let score = |label: &str, score| LabelScore { label: label.to_owned(), score };
                let (best, other) = if text.chars().count() < 40 { ("short", "long") } else { ("long", "short") };
                Annotation::Labels(vec![score(best, 0.75), score(other, 0.25)])
            }
            TaskSpec::Ner { .. } => Annotation::Spans(names(text)),
            TaskSpec::Qa { .. } => {
                Annotation::Answers(words(text).take(1).map(|(start, word)| answer(start, word)).collect())
            }
            TaskSpec::FillMask { .. } => {
                let token = || vec![TokenScore { token: "mask".to_owned(), score: 1.0 }];
                Annotation::Masks(text.matches("<mask>").map(|_| token()).collect())
            }
            TaskSpec::Generate(_) => Annotation::Text(text.chars().rev().collect()),
            TaskSpec::Choose => Annotation::Choices(input.choices.iter().map(|choice| choice.len() as f32).collect()),
            TaskSpec::Rerank => Annotation::Relevance(text.len() as f32),
        })
    }
}

impl Annotator for FakeAnnotator {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn annotate(&self, inputs: Vec<AnnotateInput>) -> BoxFuture<'static, Result<Vec<Annotated>>> {
        let answers = inputs.iter().map(|input| self.annotation(input)).collect();
        futures::future::ready(Ok(answers)).boxed()
    }
}

/// Words with the number of characters before them.
fn words(text: &str) -> impl Iterator<Item = (u64, &str)> {
    text.split_whitespace().map(move |word| {
        let before = &text[..word.as_ptr() as usize - text.as_ptr() as usize];
        (before.chars().count() as u64, word)
    })
}

fn answer(start: u64, word: &str) -> Answer {
    Answer { text: word.to_owned(), score: 1.0, chars: start..start + word.chars().count() as u64 }
}

fn names(text: &str) -> Vec<Span> {
    let named = words(text).filter(|(_, word)| word.starts_with(char::is_uppercase));
    let span = |(start, word): (u64, &str)| Span {
        label: "NAME".to_owned(),
        score: 1.0,
        chars: start..start + word.chars().count() as u64,
        text: word.to_owned(),
        continues: start == 0,
    };
    named.map(span).collect()
}

#[cfg(test)]
mod tests {
    use polylance_schema::Aggregation;

    use super::*;

    #[test]
    fn names_are_exact_slices_and_a_refusal_has_a_reason() {
        let head = FakeAnnotator::new(TaskSpec::Ner { aggregation: Aggregation::Simple });
        let input = |text: &str| AnnotateInput { text: text.to_owned(), ..AnnotateInput::default() };
        let inputs = vec![input("für Ada und Čapek"), input(REFUSED)];
        let answers = futures::executor::block_on(head.annotate(inputs)).unwrap();
        let Ok(Annotation::Spans(spans)) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!(
            spans.iter().map(|span| (span.text.as_str(), span.chars.clone())).collect::<Vec<_>>(),
            [("Ada", 4..7), ("Čapek", 12..17)]
        );
        assert!(answers[1].as_ref().is_err_and(|message| message.contains("refuses")));
    }
}
