//! From texts to a model's inputs.

use std::sync::Arc;

use polylance_encoder::TruncationSide;
use polylance_schema::TaskSpec;
use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
    utils::truncation::truncate_encodings,
};

use super::{Limit, QUESTION_WINDOW, STRIDE};
use crate::{normalizer::Tokenizer, queues::Ids};

/// A sequence for a model with a head.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TaskInput {
    /// Special tokens included.
    pub(crate) ids: Vec<u32>,
    /// The segment of each id.
    pub(crate) types: Vec<u32>,
    /// Where logits of the vocabulary are wanted.
    pub(crate) positions: Vec<usize>,
}

impl Ids for TaskInput {
    fn input_ids(&self) -> &[u32] {
        &self.ids
    }
}

/// What a device makes of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TaskOutput {
    /// Row major, as `TaskModel::forward` gives them.
    Logits(Vec<f32>),
    /// For each position the most likely ids with their probabilities.
    Top(Vec<Vec<(u32, f32)>>),
    /// Ids that were made.
    Ids(Vec<u32>),
}

impl TaskOutput {
    pub(crate) fn logits(&self) -> Result<&[f32], String> {
        match self {
            Self::Logits(logits) => Ok(logits),
            Self::Top(_) | Self::Ids(_) => Err("the model gave no logits".to_owned()),
        }
    }
}

/// The tokenizer, and how texts that are too long are cut.
///
/// Texts are encoded whole and cut afterwards: the tokenizers library, asked to cut by itself, stops reading at the
/// limit and so loses the windows behind the first one.
#[derive(Debug)]
pub(crate) struct TextEncoder {
    pub(super) tokenizer: Arc<Tokenizer>,
    truncation: Option<TruncationParams>,
}

impl TextEncoder {
    /// `tokenizer` does not cut by itself.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, spec: &TaskSpec, limit: Limit) -> Self {
        Self { tokenizer, truncation: truncation(spec, limit) }
    }

    /// A text with its prefix, offsets in characters.
    pub(super) fn single(&self, prefix: &str, text: &str) -> Result<Encoding, String> {
        let encoding = if prefix.is_empty() { self.encode(text)? } else { self.encode(&[prefix, text].concat())? };
        self.finish(encoding, None)
    }

    /// Two texts, offsets in characters of each.
    pub(super) fn pair(&self, first: &str, second: &str) -> Result<Encoding, String> {
        self.finish(self.encode(first)?, Some(self.encode(second)?))
    }

    fn encode(&self, text: &str) -> Result<Encoding, String> {
        let encoded = self.tokenizer.encode_char_offsets(text, false);
        encoded.map_err(|error| format!("the tokenizer refused the text: {error}"))
    }

    /// Cuts, and adds the special tokens.
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

/// How texts that are too long are cut: into windows where the task reads all of a text, else at the end.
fn truncation(spec: &TaskSpec, limit: Limit) -> Option<TruncationParams> {
    let Limit { max_tokens, side } = limit;
    let direction = match side {
        TruncationSide::Right => TruncationDirection::Right,
        TruncationSide::Left => TruncationDirection::Left,
    };
    let whole = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
    // Room for something new must remain beside what windows share.
    let share = |stride: usize, length: usize| stride.min(length / 2).min(length.saturating_sub(8));
    Some(match spec {
        TaskSpec::Classify { .. } | TaskSpec::Choose | TaskSpec::Rerank => TruncationParams { direction, ..whole },
        TaskSpec::ZeroShot { .. } => TruncationParams { strategy: TruncationStrategy::OnlyFirst, direction, ..whole },
        // Windows cover all of a text, whichever end they begin at.
        TaskSpec::Ner { .. } => TruncationParams { stride: share(STRIDE, max_tokens), ..whole },
        TaskSpec::Qa { doc_stride, .. } => {
            let max_length = max_tokens.min(QUESTION_WINDOW);
            let (stride, strategy) = (share(*doc_stride, max_length), TruncationStrategy::OnlySecond);
            TruncationParams { max_length, stride, strategy, ..whole }
        }
        // Cutting a prompt or a mask off would answer another question: such a text is refused.
        TaskSpec::FillMask { .. } | TaskSpec::Generate(_) => return None,
    })
}

/// An encoding and what did not fit into it.
pub(super) fn windows(mut encoding: Encoding) -> Vec<Encoding> {
    let rest = encoding.take_overflowing();
    std::iter::once(encoding).chain(rest).collect()
}

/// The model's input; `mask` is the id whose places are asked for.
pub(crate) fn model_input(encoding: &Encoding, mask: Option<u32>) -> TaskInput {
    let ids = encoding.get_ids().to_vec();
    let positions = (0..ids.len()).filter(|&at| Some(ids[at]) == mask).collect();
    TaskInput { ids, types: encoding.get_type_ids().to_vec(), positions }
}

/// `softmax` of a row. Source: `numpy`, the highest taken away first.
pub(super) fn softmax(row: &[f32]) -> Vec<f32> {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = row.iter().map(|x| (x - highest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|x| x / sum).collect()
}

/// The first of the highest.
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
    fn a_text_that_is_too_long_becomes_windows_that_share_tokens() {
        let tokenizer = Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap();
        let limit = Limit { max_tokens: 16, side: TruncationSide::Right };
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
    fn a_text_that_is_cut_loses_the_side_that_the_model_names() {
        let tokenizer = Arc::new(Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap());
        let spec = TaskSpec::Classify { scores: polylance_schema::Scores::All };
        let text = format!("{}{}", "begin ".repeat(30), "end ".repeat(30));
        let cut = |side| {
            let encoder = TextEncoder::new(Arc::clone(&tokenizer), &spec, Limit { max_tokens: 6, side });
            encoder.single("", &text).unwrap().get_tokens().to_vec()
        };
        assert_eq!(cut(TruncationSide::Right), ["<s>", "▁begin", "▁begin", "▁begin", "▁begin", "</s>"]);
        assert_eq!(cut(TruncationSide::Left), ["<s>", "▁end", "▁end", "▁end", "▁end", "</s>"]);
    }

    #[test]
    fn probabilities_sum_to_one_and_ties_go_to_the_first() {
        let row = softmax(&[1000.0, 1000.0, 0.0]);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(argmax(&row), 0);
        assert_eq!(argmax(&[]), 0);
        assert!((sigmoid(0.0) - 0.5).abs() < f32::EPSILON);
    }
}
