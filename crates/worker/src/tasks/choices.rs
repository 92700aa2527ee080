//! Pairs of texts: a text with its choices, a query with a passage.

use polylance_backend::{AnnotateInput, Annotation};
use polylance_encoder::Activation;
use tokenizers::Encoding;

use super::inputs::{TextEncoder, sigmoid, softmax};

/// Encodes the text with each choice.
pub(super) fn encode(encoder: &TextEncoder, input: &AnnotateInput) -> Result<Vec<Encoding>, String> {
    if input.choices.is_empty() {
        return Err("there are no choices".to_owned());
    }
    input.choices.iter().map(|choice| encoder.pair(&input.text, choice)).collect()
}

/// The choices' probabilities, in their order.
pub(super) fn annotation(logits: &[&[f32]]) -> Result<Annotation, String> {
    let first = |row: &&[f32]| row.first().copied().ok_or("the model returned no logit");
    Ok(Annotation::Choices(softmax(&logits.iter().map(first).collect::<Result<Vec<_>, _>>()?)))
}

/// Encodes the query with the passage.
pub(super) fn encode_passage(encoder: &TextEncoder, input: &AnnotateInput) -> Result<Vec<Encoding>, String> {
    let query = input.question.as_deref().ok_or("there is no query")?;
    Ok(vec![encoder.pair(query, &input.text)?])
}

/// How well the passage answers. A single logit goes through the model's activation whatever the `problem_type`, as in
/// sentence-transformers' `CrossEncoder`; of several classes it is the probability of the last.
pub(super) fn relevance(logits: &[f32], activation: Activation) -> Result<Annotation, String> {
    Ok(Annotation::Relevance(match (logits, activation) {
        ([logit], Activation::Sigmoid) => sigmoid(*logit),
        ([logit], Activation::Identity) => *logit,
        ([], _) => return Err("the model returned no logit".to_owned()),
        (several, _) => softmax(several)[several.len() - 1],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_sum_to_one_and_relevance_follows_the_activation() {
        assert_eq!(annotation(&[&[1.0], &[1.0]]), Ok(Annotation::Choices(vec![0.5, 0.5])));
        assert_eq!(relevance(&[0.0], Activation::Sigmoid), Ok(Annotation::Relevance(0.5)));
        assert_eq!(relevance(&[3.0], Activation::Identity), Ok(Annotation::Relevance(3.0)));
        assert_eq!(relevance(&[1.0, 1.0], Activation::Sigmoid), Ok(Annotation::Relevance(0.5)));
        assert!(relevance(&[], Activation::Sigmoid).is_err() && annotation(&[&[]]).is_err());
    }
}
