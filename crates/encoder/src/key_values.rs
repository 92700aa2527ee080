//! Keys and values of the tokens that a decoder has seen, so that each is computed once.

use candle_core::Tensor;

use crate::error::Result;

/// One layer's, each `[heads, tokens, head_size]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyValues(Option<(Tensor, Tensor)>);

impl KeyValues {
    /// Adds those of the next tokens, and returns those of all.
    pub(crate) fn extend(&mut self, key: &Tensor, value: &Tensor) -> Result<(Tensor, Tensor)> {
        let (key, value) = match &self.0 {
            // They are views of a larger tensor, which would otherwise live as long as they do.
            None => (key.contiguous()?, value.contiguous()?),
            Some((keys, values)) => (Tensor::cat(&[keys, key], 1)?, Tensor::cat(&[values, value], 1)?),
        };
        self.0 = Some((key.clone(), value.clone()));
        Ok((key, value))
    }
}
