//! Fills masks with the most likely tokens.

use polylance_backend::{Annotation, TokenScore};
use tokenizers::Encoding;

use super::inputs::{TaskOutput, TextEncoder, softmax};
use crate::tokenize::Tokenizer;

/// Encodes the text, which must have a mask.
pub(super) fn encode(encoder: &TextEncoder, text: &str, mask: Option<u32>) -> Result<Vec<Encoding>, String> {
    let encoding = encoder.single("", text)?;
    let name = mask.and_then(|mask| encoder.tokenizer.id_to_token(mask)).unwrap_or_default();
    if encoding.get_ids().iter().any(|id| Some(*id) == mask) {
        Ok(vec![encoding])
    } else {
        Err(format!("the text has no {name}"))
    }
}

/// The `count` most likely tokens of a row of logits, with their probabilities. Ties are in the order of the ids.
pub(crate) fn top_tokens(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let probabilities = softmax(logits);
    let mut ids: Vec<u32> = (0..probabilities.len() as u32).collect();
    let order = |a: &u32, b: &u32| probabilities[*b as usize].total_cmp(&probabilities[*a as usize]).then(a.cmp(b));
    let count = count.min(ids.len());
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids.into_iter().map(|id| (id, probabilities[id as usize])).collect()
}

/// The tokens of each mask, as the pipeline's `token_str`. Source: `FillMaskPipeline.postprocess`.
pub(super) fn annotation(tokenizer: &Tokenizer, output: &TaskOutput) -> Result<Annotation, String> {
    let TaskOutput::TopTokens(masks) = output else { return Err("the model returned no tokens".to_owned()) };
    let token = |&(id, score): &(u32, f32)| {
        let token = tokenizer.decode(&[id], false).map_err(|error| error.to_string())?;
        Ok(TokenScore { token, score })
    };
    let masks = masks.iter().map(|top| top.iter().map(token).collect::<Result<Vec<_>, String>>());
    Ok(Annotation::Masks(masks.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_likely_tokens_come_first_and_ties_by_id() {
        let ids = |count| top_tokens(&[0.0, 2.0, 1.0, 2.0], count).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(3), [1, 3, 2]);
        assert_eq!(ids(9), [1, 3, 2, 0]);
    }
}
