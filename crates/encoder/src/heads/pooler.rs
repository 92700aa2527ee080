//! The first token's state through a linear map and tanh.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::{batch::CuSeqlens, config::ModelConfig, error::Result, linear::Linear};

/// `tanh(W x + b)` of each sequence's first token.
#[derive(Debug, Clone)]
pub(super) struct Pooler {
    dense: Linear,
}

impl Pooler {
    /// Loads `weight` (`[hidden, hidden]`) and `bias`.
    pub(super) fn load(vb: VarBuilder<'_>, config: &ModelConfig) -> Result<Self> {
        Ok(Self { dense: Linear::load(config.hidden_size, config.hidden_size, vb)? })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns `[sequences, hidden]`.
    ///
    /// Source: `XLMRobertaXLPooler` and `BertPooler` in transformers 5.23; the classification heads of the `RoBERTa`
    /// kinds compute the same under another name.
    pub(super) fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        let first = Tensor::new(cu_seqlens.starts(), hidden_states.device())?;
        Ok(self.dense.forward(&hidden_states.index_select(&first, 0)?)?.tanh()?)
    }
}
