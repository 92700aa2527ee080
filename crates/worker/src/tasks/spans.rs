//! Entities, from the logits of tokens.
//!
//! Source: `TokenClassificationPipeline` in transformers 5.23: neighbouring tokens of one kind are one entity even with
//! white space between them. Two things differ. If the tokenizer does not mark pieces, a token begins a word after any
//! white space, not only U+0020, because tokenizers split there too. And no entity begins or ends with white space,
//! which some tokenizers add to the word after it.

use polylance_backend::{Annotation, Span};
use polylance_schema::Aggregation;
use tokenizers::{Encoding, ModelWrapper};

use super::{
    inputs::{argmax, softmax},
    schemes::Tags,
};
use crate::tokenize::Tokenizer;

/// The text of the tokens, and how the tokenizer marks words.
#[derive(Debug)]
pub(super) struct Tokens {
    text: Vec<char>,
    /// Characters of the prefix: offsets include them, the text does not.
    prefix: usize,
    unknown: Option<u32>,
    /// Whether pieces inside a word are marked, as by `WordPiece`.
    marks_pieces: bool,
}

/// A token of the text.
#[derive(Debug, Clone)]
struct Token {
    start: usize,
    end: usize,
    inside_word: bool,
    scores: Vec<f32>,
}

/// A token or a word with its class.
#[derive(Debug, Clone, Copy)]
struct Classified {
    start: usize,
    end: usize,
    class: usize,
    score: f32,
}

impl Tokens {
    pub(super) fn new(tokenizer: &Tokenizer, prefix: &str, text: &str) -> Self {
        let (marks_pieces, unknown) = match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => {
                (!model.continuing_subword_prefix.is_empty(), tokenizer.token_to_id(&model.unk_token))
            }
            ModelWrapper::BPE(model) => (
                model.continuing_subword_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()),
                model.unk_token.as_ref().and_then(|token| tokenizer.token_to_id(token)),
            ),
            _ => (false, ["<unk>", "[UNK]"].iter().find_map(|token| tokenizer.token_to_id(token))),
        };
        Self { text: text.chars().collect(), prefix: prefix.chars().count(), unknown, marks_pieces }
    }

    /// The tokens of a window without special ones and those of the prefix.
    fn of_window(&self, encoding: &Encoding, logits: &[f32]) -> Result<Vec<Token>, String> {
        let count = encoding.len();
        if count == 0 || !logits.len().is_multiple_of(count) {
            return Err(format!("{} logits for {count} tokens", logits.len()));
        }
        let rows = logits.chunks(logits.len() / count);
        let special = encoding.get_special_tokens_mask();
        let mut tokens = Vec::with_capacity(count);
        for (at, row) in rows.enumerate() {
            let (start, end) = encoding.get_offsets()[at];
            if special[at] != 0 || (self.prefix > 0 && end <= self.prefix) {
                continue;
            }
            let place = |offset: usize| offset.saturating_sub(self.prefix).min(self.text.len());
            let (start, end) = (place(start), place(end));
            let white = |at: usize| self.text.get(at).is_some_and(|character| character.is_whitespace());
            // Offsets may include the white space before the word.
            let word = (start..end).find(|&at| !white(at));
            let inside_word = Some(encoding.get_ids()[at]) != self.unknown
                && if self.marks_pieces {
                    encoding.get_tokens()[at].chars().count() != end - start
                } else {
                    let start = word.unwrap_or(start);
                    start > 0 && !white(start - 1) && !white(start)
                };
            tokens.push(Token { start, end, inside_word, scores: softmax(row) });
        }
        Ok(tokens)
    }

    /// A span over these tokens or words; `None` if they cover only white space.
    fn span(&self, label: &str, parts: &[Classified], continues: bool) -> Option<Span> {
        let (first, last) = (parts.first()?, parts.last()?);
        let visible = |at: &usize| !self.text[*at].is_whitespace();
        let start = (first.start..last.end).find(visible)?;
        let end = (start..last.end).rfind(visible)? + 1;
        let score = parts.iter().map(|part| part.score).sum::<f32>() / parts.len() as f32;
        let text = self.text[start..end].iter().collect();
        Some(Span { label: label.to_owned(), score, chars: start as u64..end as u64, text, continues })
    }
}

/// The entities of a text, in text order. `logits`: `[tokens, labels]` for each window.
pub(super) fn annotation(
    tokens: &Tokens,
    windows: &[Encoding],
    logits: &[&[f32]],
    tags: &Tags,
    aggregation: Aggregation,
) -> Result<Annotation, String> {
    let mut spans = Vec::new();
    for (encoding, logits) in windows.iter().zip(logits) {
        let window_tokens = tokens.of_window(encoding, logits)?;
        let classified = classify(&window_tokens, aggregation);
        spans.extend(if aggregation == Aggregation::None {
            token_spans(tokens, &classified, tags)
        } else {
            grouped_spans(tokens, &classified, tags)
        });
    }
    Ok(Annotation::Spans(if windows.len() > 1 { deduplicate(spans) } else { spans }))
}

/// The class of each token, or of each word.
fn classify(tokens: &[Token], aggregation: Aggregation) -> Vec<Classified> {
    let of_token = |token: &Token| {
        let class = argmax(&token.scores);
        let score = token.scores.get(class).copied().unwrap_or(f32::NAN);
        Classified { start: token.start, end: token.end, class, score }
    };
    if matches!(aggregation, Aggregation::None | Aggregation::Simple) {
        return tokens.iter().map(of_token).collect();
    }
    let words = tokens.chunk_by(|_, next| next.inside_word);
    let of_word = |word: &[Token]| {
        let chosen = match aggregation {
            Aggregation::First => of_token(&word[0]),
            Aggregation::Average => of_token(&Token { scores: mean(word), ..word[0].clone() }),
            _ => {
                let better = |best: Classified, next: Classified| if next.score > best.score { next } else { best };
                word[1..].iter().map(of_token).fold(of_token(&word[0]), better)
            }
        };
        Classified { start: word[0].start, end: word[word.len() - 1].end, ..chosen }
    };
    words.map(of_word).collect()
}

fn mean(word: &[Token]) -> Vec<f32> {
    let classes = word[0].scores.len();
    (0..classes).map(|class| word.iter().map(|token| token.scores[class]).sum::<f32>() / word.len() as f32).collect()
}

/// Every token inside an entity, under its whole tag.
fn token_spans(tokens: &Tokens, classified: &[Classified], tags: &Tags) -> Vec<Span> {
    let span = |token: &Classified| {
        let tag = tags.get(token.class).filter(|tag| !tag.is_outside())?;
        tokens.span(&tag.label, std::slice::from_ref(token), tag.continues)
    };
    classified.iter().filter_map(span).collect()
}

/// Neighbouring tokens of one kind, joined.
fn grouped_spans(tokens: &Tokens, classified: &[Classified], tags: &Tags) -> Vec<Span> {
    let follows = |before: &Classified, next: &Classified| match (tags.get(before.class), tags.get(next.class)) {
        (Some(before), Some(next)) => next.follows(before),
        _ => false,
    };
    let span = |group: &[Classified]| {
        let tag = tags.get(group[0].class).filter(|tag| tag.name != "O")?;
        tokens.span(&tag.name, group, tag.continues)
    };
    classified.chunk_by(follows).filter_map(span).collect()
}

/// Of overlapping spans from different windows the longer stays, then the one with the higher score.
///
/// Source: `aggregate_overlapping_entities`.
fn deduplicate(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.chars.start);
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match kept.last_mut().filter(|last| last.chars.contains(&span.chars.start)) {
            Some(last) => {
                let length = |span: &Span| span.chars.end - span.chars.start;
                if (length(&span), span.score) > (length(last), last.score) {
                    *last = span;
                }
            }
            None => kept.push(span),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(chars: std::ops::Range<u64>, score: f32) -> Span {
        Span { label: "PER".into(), score, chars, text: String::new(), continues: false }
    }

    #[test]
    fn longer_of_two_overlapping_spans_stays() {
        let kept = deduplicate(vec![span(0..5, 0.9), span(8..9, 0.5), span(0..7, 0.1), span(8..9, 0.6)]);
        assert_eq!(kept, [span(0..7, 0.1), span(8..9, 0.6)]);
    }

    /// Spans of a text whose tokens, one per range, are `B-PER` or outside.
    fn people(text: &str, tokens: &[(std::ops::Range<usize>, bool)], aggregation: Aggregation) -> Vec<Span> {
        let (offsets, classes): (Vec<_>, Vec<bool>) = tokens.iter().cloned().unzip();
        let offsets: Vec<(usize, usize)> = offsets.into_iter().map(|range| (range.start, range.end)).collect();
        let count = offsets.len();
        let encoding = Encoding::new(
            vec![5; count],
            vec![0; count],
            vec!["x".to_owned(); count],
            vec![None; count],
            offsets,
            vec![0; count],
            vec![1; count],
            Vec::new(),
            std::iter::empty().collect(),
        );
        let logits: Vec<f32> =
            classes.iter().flat_map(|&person| if person { [0.0, 9.0] } else { [9.0, 0.0] }).collect();
        let tags = Tags::new(&["O".to_owned(), "B-PER".to_owned()]);
        let tokens = Tokens { text: text.chars().collect(), prefix: 0, unknown: Some(3), marks_pieces: false };
        let Ok(Annotation::Spans(spans)) = annotation(&tokens, &[encoding], &[&logits], &tags, aggregation) else {
            panic!("no spans")
        };
        spans
    }

    fn texts(spans: &[Span]) -> Vec<(&str, std::ops::Range<u64>)> {
        spans.iter().map(|span| (span.text.as_str(), span.chars.clone())).collect()
    }

    #[test]
    fn span_has_no_white_space_at_its_ends() {
        // A tokenizer that adds the space before a word to the word, and also has it as a token of its own.
        let tokens = [(0..3, false), (3..8, true), (8..9, true), (9..11, false)];
        for aggregation in [Aggregation::None, Aggregation::Simple, Aggregation::First, Aggregation::Max] {
            let spans = people("the Anna\u{3000}is", &tokens, aggregation);
            assert_eq!(texts(&spans), [("Anna", 4..8)], "{aggregation:?}");
        }
    }

    #[test]
    fn word_ends_at_any_white_space() {
        for space in [" ", "\t", "\n", "\u{a0}", "\u{3000}", "\u{2028}"] {
            let text = format!("Anna{space}London");
            let spans = people(&text, &[(0..4, true), (5..8, false), (8..11, false)], Aggregation::First);
            assert_eq!(texts(&spans), [("Anna", 0..4)], "{space:?}");
            let spans = people(&text, &[(0..2, true), (2..4, false), (4..11, false)], Aggregation::First);
            assert_eq!(texts(&spans), [("Anna", 0..4)], "{space:?}");
        }
    }

    #[test]
    fn word_class_is_that_of_the_first_token_the_mean_or_the_highest_score() {
        let token = |start, inside_word, scores: [f32; 2]| Token {
            start,
            end: start + 1,
            inside_word,
            scores: scores.to_vec(),
        };
        let word = [token(0, false, [0.6, 0.4]), token(1, true, [0.1, 0.9]), token(3, false, [1.0, 0.0])];
        let class = |aggregation| {
            let words = classify(&word, aggregation);
            assert_eq!((words.len(), words[0].start, words[0].end), (2, 0, 2));
            (words[0].class, words[0].score)
        };
        assert_eq!(class(Aggregation::First), (0, 0.6));
        assert_eq!(class(Aggregation::Max), (1, 0.9));
        let (average, score) = class(Aggregation::Average);
        assert!(average == 1 && (score - 0.65).abs() < 1e-6);
        assert_eq!(classify(&word, Aggregation::Simple).len(), 3);
    }
}
