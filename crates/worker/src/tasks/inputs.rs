//! From texts to a model's inputs.

use polylance_schema::TaskSpec;
use tokenizers::{Encoding, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use super::{QUESTION_WINDOW, STRIDE};
use crate::queues::Ids;

/// A sequence for a model with a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskInput {
    /// Special tokens included.
    pub(crate) ids: Vec<u32>,
    /// The segment of each id.
    pub(crate) types: Vec<u32>,
    /// Where logits of the vocabulary are wanted.
    pub(crate) positions: Vec<usize>,
}

impl Ids for TaskInput {
    fn ids(&self) -> usize {
        self.ids.len()
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

/// How texts that are too long are cut: into windows where the task reads all of a text, else at the end.
pub(super) fn truncation(spec: &TaskSpec, max_tokens: usize) -> Option<TruncationParams> {
    let whole =
        TruncationParams { direction: TruncationDirection::Right, max_length: max_tokens, ..Default::default() };
    // Room for the special tokens must remain beside what windows share.
    let share = |stride: usize, length: usize| stride.min(length / 2).min(length.saturating_sub(8));
    Some(match spec {
        TaskSpec::Classify { .. } | TaskSpec::Choose | TaskSpec::Rerank => whole,
        TaskSpec::ZeroShot { .. } => TruncationParams { strategy: TruncationStrategy::OnlyFirst, ..whole },
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

/// A text with its prefix, offsets in characters.
pub(super) fn single(tokenizer: &Tokenizer, prefix: &str, text: &str) -> Result<Encoding, String> {
    let encoded = if prefix.is_empty() {
        tokenizer.encode_char_offsets(text, true)
    } else {
        tokenizer.encode_char_offsets([prefix, text].concat(), true)
    };
    encoded.map_err(|error| format!("the tokenizer refused the text: {error}"))
}

/// Two texts, offsets in characters of each.
pub(super) fn pair(tokenizer: &Tokenizer, first: &str, second: &str) -> Result<Encoding, String> {
    let encoded = tokenizer.encode_char_offsets((first, second), true);
    encoded.map_err(|error| format!("the tokenizer refused the texts: {error}"))
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
    fn probabilities_sum_to_one_and_ties_go_to_the_first() {
        let row = softmax(&[1000.0, 1000.0, 0.0]);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(argmax(&row), 0);
        assert_eq!(argmax(&[]), 0);
        assert!((sigmoid(0.0) - 0.5).abs() < f32::EPSILON);
    }
}
