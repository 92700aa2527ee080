//! The cache of a decoder's keys and values, so that those of each token are computed once.

use candle_core::Tensor;

use crate::error::Result;

/// The keys and values of one layer, each `[heads, tokens, head_size]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyValues(Option<(Tensor, Tensor)>);

impl KeyValues {
    /// Appends those of the next tokens, and returns those of all tokens.
    pub(crate) fn extend(&mut self, key: &Tensor, value: &Tensor) -> Result<(Tensor, Tensor)> {
        let (key, value) = match &self.0 {
            // They are views of a larger tensor, which the copies do not keep alive.
            None => (key.contiguous()?, value.contiguous()?),
            Some((keys, values)) => (Tensor::cat(&[keys, key], 1)?, Tensor::cat(&[values, value], 1)?),
        };
        self.0 = Some((key.clone(), value.clone()));
        Ok((key, value))
    }
}
