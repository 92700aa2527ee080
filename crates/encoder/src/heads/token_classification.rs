//! Token classification: one logit per label for each token.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::{config::ModelConfig, error::Result, linear::Linear, weights::TensorSpec};

/// A classifier of tokens; the same in all kinds.
#[derive(Debug, Clone)]
pub struct TokenClassifier {
    classifier: Linear,
}

/// The tensors that [`TokenClassifier::load`] reads.
pub(super) fn tensors(config: &ModelConfig, labels: usize) -> Vec<TensorSpec> {
    TensorSpec::linear("classifier", labels, config.hidden_size).into()
}

impl TokenClassifier {
    /// Loads `classifier` (`[labels, hidden]`).
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{ModelConfig, TokenClassifier};
    ///
    /// let config = ModelConfig::tiny();
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let head = TokenClassifier::load(vb, &config, 7)?;
    /// let hidden_states = Tensor::randn(0f32, 1., (5, config.hidden_size), &Device::Cpu)?;
    /// assert_eq!(head.forward(&hidden_states)?.dims(), [5, 7]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(vb: VarBuilder<'_>, config: &ModelConfig, labels: usize) -> Result<Self> {
        Ok(Self { classifier: Linear::load(config.hidden_size, labels, vb.pp("classifier"))? })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns the logits: `[total_tokens, labels]`.
    ///
    /// Source: `XLMRobertaXLForTokenClassification` and `BertForTokenClassification` in transformers 5.23.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        self.classifier.forward(hidden_states)
    }
}
