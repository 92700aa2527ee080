//! Multiple choice: one logit per sequence, to be compared among the choices of one question.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::pooler::Pooler;
use crate::{batch::CuSeqlens, config::ModelConfig, error::Result, linear::Linear, weights::TensorSpec};

/// How well each sequence, a question with one of its choices, fits; the same in all kinds.
#[derive(Debug, Clone)]
pub struct MultipleChoice {
    pooler: Pooler,
    classifier: Linear,
}

/// The tensors that [`MultipleChoice::load`] reads.
pub(super) fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let hidden = config.hidden_size;
    [TensorSpec::linear("pooler.dense", hidden, hidden), TensorSpec::linear("classifier", 1, hidden)].concat()
}

impl MultipleChoice {
    /// Loads `pooler.dense` and `classifier` (`[1, hidden]`).
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{CuSeqlens, ModelConfig, MultipleChoice};
    ///
    /// let config = ModelConfig::tiny();
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let head = MultipleChoice::load(vb, &config)?;
    /// let hidden_states = Tensor::randn(0f32, 1., (5, config.hidden_size), &Device::Cpu)?;
    /// assert_eq!(head.forward(&hidden_states, &CuSeqlens::new(vec![0, 3, 5], 5)?)?.dims(), [2, 1]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(vb: VarBuilder<'_>, config: &ModelConfig) -> Result<Self> {
        Ok(Self {
            pooler: Pooler::load(vb.pp("pooler.dense"), config)?,
            classifier: Linear::load(config.hidden_size, 1, vb.pp("classifier"))?,
        })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns `[sequences, 1]`.
    ///
    /// Source: `XLMRobertaXLForMultipleChoice` and `BertForMultipleChoice` in transformers 5.23.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        self.classifier.forward(&self.pooler.forward(hidden_states, cu_seqlens)?)
    }
}
