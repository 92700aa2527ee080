//! Extracts answers to a question from a text.
//!
//! Source: `QuestionAnsweringPipeline` in transformers 4.57 (version 5 has none), with its defaults.

use polylance_backend::{AnnotateInput, Annotation, Answer};
use tokenizers::Encoding;

use super::inputs::{TextEncoder, softmax, windows};

/// Which answers are returned.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerOptions {
    /// Maximum number of answers.
    pub(super) max_answers: usize,
    /// Maximum number of tokens in an answer.
    pub(super) max_tokens: usize,
    /// Whether "no answer" may be one.
    pub(super) null_answer: bool,
    /// Whether answers are extended to whole words.
    pub(super) align_to_words: bool,
}

/// Encodes windows on the question and its context.
pub(super) fn encode(encoder: &TextEncoder, input: &AnnotateInput) -> Result<Vec<Encoding>, String> {
    let question = input.question.as_deref().ok_or("there is no question")?;
    if question.trim().is_empty() {
        return Err("the question is empty".to_owned());
    }
    if input.text.is_empty() {
        return Err("the context is empty".to_owned());
    }
    Ok(windows(encoder.pair(question, &input.text)?))
}

/// The answers, best first. `logits`: `[tokens, 2]` for each window.
pub(super) fn annotation(
    context: &str,
    windows: &[Encoding],
    logits: &[&[f32]],
    options: AnswerOptions,
) -> Result<Annotation, String> {
    let context: Vec<char> = context.chars().collect();
    let mut answers: Vec<Answer> = Vec::new();
    let mut least_null = f32::INFINITY;
    for (encoding, logits) in windows.iter().zip(logits) {
        let window = Window::new(encoding, logits)?;
        least_null = least_null.min(window.null);
        // Several pairs of tokens may be extended to the same words.
        let count = if options.align_to_words { options.max_answers * 2 + 10 } else { options.max_answers };
        for (start, end, score) in window.candidates(count, options.max_tokens) {
            let words = if options.align_to_words { words(encoding, start, end) } else { None };
            let offsets = encoding.get_offsets();
            let (start, end) = words.unwrap_or_else(|| (offsets[start].0, offsets[end].1));
            let (mut start, end) = (start.min(context.len()), end.min(context.len()));
            // A token may begin with a space, which is not part of an answer.
            while start < end && context[start].is_whitespace() {
                start += 1;
            }
            let text: String = context.get(start..end).unwrap_or_default().iter().collect();
            match answers.iter_mut().find(|answer| answer.text.to_lowercase() == text.to_lowercase()) {
                Some(answer) => answer.score += score,
                None => answers.push(Answer { text, score, chars: start as u64..end.max(start) as u64 }),
            }
        }
    }
    if options.null_answer {
        answers.push(Answer { text: String::new(), score: least_null, chars: 0..0 });
    }
    answers.sort_by(|a, b| b.score.total_cmp(&a.score));
    answers.truncate(options.max_answers);
    Ok(Annotation::Answers(answers))
}

/// Probabilities of an answer's first and last token in one window.
struct Window {
    start: Vec<f32>,
    end: Vec<f32>,
    /// Which tokens may be in an answer.
    context: Vec<bool>,
    /// The probability that there is no answer: both ends at the first token.
    null: f32,
}

impl Window {
    fn new(encoding: &Encoding, logits: &[f32]) -> Result<Self, String> {
        if logits.len() != encoding.len() * 2 || logits.is_empty() {
            return Err(format!("{} logits for {} tokens", logits.len(), encoding.len()));
        }
        let context: Vec<bool> = encoding.get_sequence_ids().iter().map(|id| *id == Some(1)).collect();
        // The first token stands for "no answer": it takes part in the softmax.
        let cls = encoding.get_ids()[0];
        let may = |at: usize| context[at] || encoding.get_ids()[at] == cls;
        let side = |side: usize| {
            let column = (0..encoding.len()).map(|at| if may(at) { logits[at * 2 + side] } else { -10_000.0 });
            softmax(&column.collect::<Vec<_>>())
        };
        let (mut start, mut end) = (side(0), side(1));
        let null = start[0] * end[0];
        (start[0], end[0]) = (0.0, 0.0);
        let context = (0..encoding.len()).map(may).collect();
        Ok(Self { start, end, context, null })
    }

    /// The `count` most likely pairs of first and last token, at most `max_tokens` long. Pairs outside the context are
    /// removed afterwards, as in `decode_spans`.
    fn candidates(&self, count: usize, max_tokens: usize) -> Vec<(usize, usize, f32)> {
        let length = self.start.len();
        let mut pairs: Vec<(usize, usize, f32)> = (0..length)
            .flat_map(|start| (start..length.min(start.saturating_add(max_tokens))).map(move |end| (start, end)))
            .map(|(start, end)| (start, end, self.start[start] * self.end[end]))
            .collect();
        let order =
            |a: &(usize, usize, f32), b: &(usize, usize, f32)| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1)));
        if count < pairs.len() {
            pairs.select_nth_unstable_by(count, order);
            pairs.truncate(count);
        }
        pairs.sort_unstable_by(order);
        pairs.retain(|(start, end, _)| self.context[*start] && self.context[*end]);
        pairs
    }
}

/// The characters of the words that an answer's tokens belong to, if the tokenizer marks words.
fn words(encoding: &Encoding, start: usize, end: usize) -> Option<(usize, usize)> {
    let word = |token: usize| {
        let (_, word) = encoding.token_to_word(token)?;
        encoding.word_to_chars(word, 1)
    };
    Some((word(start)?.0, word(end)?.1))
}
