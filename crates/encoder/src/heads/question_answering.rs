//! Extractive question answering: where an answer starts and ends.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::{config::ModelConfig, error::Result, linear::Linear, weights::TensorSpec};

/// Logits per token: start and end.
const TOKEN_LOGITS: usize = 2;

/// Start and end logits of tokens; the same in all kinds.
#[derive(Debug, Clone)]
pub struct QuestionAnswering {
    outputs: Linear,
}

/// The tensors that [`QuestionAnswering::load`] reads.
pub(super) fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    TensorSpec::linear("qa_outputs", TOKEN_LOGITS, config.hidden_size).into()
}

impl QuestionAnswering {
    /// Loads `qa_outputs` (`[2, hidden]`).
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{ModelConfig, QuestionAnswering};
    ///
    /// let config = ModelConfig::tiny();
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let head = QuestionAnswering::load(vb, &config)?;
    /// let hidden_states = Tensor::randn(0f32, 1., (5, config.hidden_size), &Device::Cpu)?;
    /// assert_eq!(head.forward(&hidden_states)?.dims(), [5, 2]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(vb: VarBuilder<'_>, config: &ModelConfig) -> Result<Self> {
        Ok(Self { outputs: Linear::load(config.hidden_size, TOKEN_LOGITS, vb.pp("qa_outputs"))? })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns `[total_tokens, 2]`: start and end logits.
    ///
    /// Source: `XLMRobertaXLForQuestionAnswering` and `BertForQuestionAnswering` in transformers 5.23.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        self.outputs.forward(hidden_states)
    }
}
