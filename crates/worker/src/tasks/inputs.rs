//! From texts to a model's inputs, and the outputs of devices.

use std::sync::Arc;

use polylance_encoder::TruncationSide;
use polylance_schema::TaskSpec;
use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
    utils::truncation::truncate_encodings,
};

use crate::{device::TokenCount, tokenize::Tokenizer};

/// Tokens that two windows on a long text share, unless the task sets it.
const WINDOW_OVERLAP_TOKENS: usize = 128;
/// Maximum number of tokens in a window on a question and its context: transformers' own limit.
const MAX_QUESTION_WINDOW_TOKENS: usize = 384;

/// How a text that is too long is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InputLimit {
    /// Maximum number of tokens in one input.
    pub(crate) max_tokens: usize,
    pub(crate) side: TruncationSide,
}

/// One sequence for a model with a head.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TaskInput {
    /// Special tokens included.
    pub(crate) input_ids: Vec<u32>,
    /// The segment of each token.
    pub(crate) token_types: Vec<u32>,
    /// Where logits of the vocabulary are computed.
    pub(crate) mask_positions: Vec<usize>,
}

impl TokenCount for TaskInput {
    fn input_ids(&self) -> &[u32] {
        &self.input_ids
    }
}

/// A device's output for one sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TaskOutput {
    /// Row major, as `HeadModel::forward` returns them.
    Logits(Vec<f32>),
    /// For each mask the most likely tokens with their probabilities.
    TopTokens(Vec<Vec<(u32, f32)>>),
    /// Generated tokens.
    Generated(Vec<u32>),
}

impl TaskOutput {
    pub(crate) fn logits(&self) -> Result<&[f32], String> {
        match self {
            Self::Logits(logits) => Ok(logits),
            Self::TopTokens(_) | Self::Generated(_) => Err("the model returned no logits".to_owned()),
        }
    }
}

/// The tokenizer, and how texts that are too long are cut.
///
/// Texts are encoded whole and cut afterwards: if the tokenizers library truncates, it stops reading at the limit and
/// so loses the windows after the first one.
#[derive(Debug)]
pub(crate) struct TextEncoder {
    pub(super) tokenizer: Arc<Tokenizer>,
    truncation: Option<TruncationParams>,
}

impl TextEncoder {
    /// `tokenizer` must not truncate.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, spec: &TaskSpec, limit: InputLimit) -> Self {
        Self { tokenizer, truncation: truncation(spec, limit) }
    }

    /// Encodes a text with its prefix; offsets are in characters.
    pub(super) fn single(&self, prefix: &str, text: &str) -> Result<Encoding, String> {
        let encoding = if prefix.is_empty() { self.encode(text)? } else { self.encode(&[prefix, text].concat())? };
        self.finish(encoding, None)
    }

    /// Encodes two texts; offsets are in characters of each.
    pub(super) fn pair(&self, first: &str, second: &str) -> Result<Encoding, String> {
        self.finish(self.encode(first)?, Some(self.encode(second)?))
    }

    fn encode(&self, text: &str) -> Result<Encoding, String> {
        let encoded = self.tokenizer.encode_char_offsets(text, false);
        encoded.map_err(|error| format!("the tokenizer refused the text: {error}"))
    }

    /// Truncates, and adds the special tokens.
    fn finish(&self, first: Encoding, second: Option<Encoding>) -> Result<Encoding, String> {
        let refused = |error: &dyn std::fmt::Display| format!("the tokenizer refused the text: {error}");
        let (first, second) = match &self.truncation {
            None => (first, second),
            Some(truncation) => {
                let added = self.tokenizer.get_post_processor().map_or(0, |post| post.added_tokens(second.is_some()));
                let max_length = truncation.max_length.saturating_sub(added);
                if truncation.strategy == TruncationStrategy::OnlySecond
                    && max_length.saturating_sub(first.len()) <= truncation.stride
                {
                    return Err(format!("{} tokens of the first text leave no room for the second", first.len()));
                }
                let truncation = TruncationParams { max_length, ..truncation.clone() };
                truncate_encodings(first, second, &truncation).map_err(|error| refused(&error))?
            }
        };
        self.tokenizer.post_process(first, second, true).map_err(|error| refused(&error))
    }
}

/// How texts that are too long are cut: into windows if the task reads all of a text, otherwise at one end.
fn truncation(spec: &TaskSpec, limit: InputLimit) -> Option<TruncationParams> {
    let InputLimit { max_tokens, side } = limit;
    let direction = match side {
        TruncationSide::Right => TruncationDirection::Right,
        TruncationSide::Left => TruncationDirection::Left,
    };
    let whole = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
    // A window must have room for new tokens next to the shared ones.
    let overlap = |stride: usize, length: usize| stride.min(length / 2).min(length.saturating_sub(8));
    Some(match spec {
        TaskSpec::Classify { .. } | TaskSpec::Choose | TaskSpec::Rerank => TruncationParams { direction, ..whole },
        TaskSpec::ZeroShot { .. } => TruncationParams { strategy: TruncationStrategy::OnlyFirst, direction, ..whole },
        // Windows cover all of a text, so the side does not matter.
        TaskSpec::Ner { .. } => TruncationParams { stride: overlap(WINDOW_OVERLAP_TOKENS, max_tokens), ..whole },
        TaskSpec::Qa { doc_stride, .. } => {
            let max_length = max_tokens.min(MAX_QUESTION_WINDOW_TOKENS);
            let (stride, strategy) = (overlap(*doc_stride, max_length), TruncationStrategy::OnlySecond);
            TruncationParams { max_length, stride, strategy, ..whole }
        }
        // Without a part of the prompt, or the mask, the result would be of another input: such a text is refused.
        TaskSpec::FillMask { .. } | TaskSpec::Generate(_) => return None,
    })
}

/// An encoding and its overflowing windows.
pub(super) fn windows(mut encoding: Encoding) -> Vec<Encoding> {
    let rest = encoding.take_overflowing();
    std::iter::once(encoding).chain(rest).collect()
}

/// The model's input; `mask` is the token whose positions are filled.
pub(super) fn model_input(encoding: &Encoding, mask: Option<u32>) -> TaskInput {
    let input_ids = encoding.get_ids().to_vec();
    let mask_positions = (0..input_ids.len()).filter(|&at| Some(input_ids[at]) == mask).collect();
    TaskInput { input_ids, token_types: encoding.get_type_ids().to_vec(), mask_positions }
}

/// The softmax of a row, with the maximum subtracted first as in `numpy`.
pub(super) fn softmax(row: &[f32]) -> Vec<f32> {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = row.iter().map(|x| (x - highest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|x| x / sum).collect()
}

/// The position of the maximum, the first one of several.
pub(super) fn argmax(row: &[f32]) -> usize {
    let better = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (0..row.len()).reduce(better).unwrap_or(0)
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_becomes_overlapping_windows() {
        let tokenizer = Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap();
        let limit = InputLimit { max_tokens: 16, side: TruncationSide::Right };
        let spec = TaskSpec::Ner { aggregation: polylance_schema::Aggregation::Simple };
        let encoder = TextEncoder::new(Arc::new(tokenizer), &spec, limit);
        let windows = windows(encoder.single("", &"word ".repeat(30)).unwrap());
        assert_eq!(windows.iter().map(Encoding::len).collect::<Vec<_>>(), [16, 16, 16, 14]);
        let special = |window: &Encoding| window.get_special_tokens_mask().to_vec();
        assert!(
            windows.iter().all(|window| special(window)[0] == 1 && special(window).last() == Some(&1)),
            "{windows:?}"
        );
    }

    #[test]
    fn long_text_is_truncated_at_the_side_of_the_model() {
        let tokenizer = Arc::new(Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap());
        let spec = TaskSpec::Classify { scores: polylance_schema::Scores::All };
        let text = format!("{}{}", "begin ".repeat(30), "end ".repeat(30));
        let cut = |side| {
            let encoder = TextEncoder::new(Arc::clone(&tokenizer), &spec, InputLimit { max_tokens: 6, side });
            encoder.single("", &text).unwrap().get_tokens().to_vec()
        };
        assert_eq!(cut(TruncationSide::Right), ["<s>", "▁begin", "▁begin", "▁begin", "▁begin", "</s>"]);
        assert_eq!(cut(TruncationSide::Left), ["<s>", "▁end", "▁end", "▁end", "▁end", "</s>"]);
    }

    #[test]
    fn softmax_sums_to_one_and_argmax_returns_the_first_of_ties() {
        let row = softmax(&[1000.0, 1000.0, 0.0]);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(argmax(&row), 0);
        assert_eq!(argmax(&[]), 0);
        assert!((sigmoid(0.0) - 0.5).abs() < f32::EPSILON);
    }
}
