//! Sequence classification: one logit per label.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use polylance_schema::Pooling;

use super::pooler::Pooler;
use crate::{
    batch::CuSeqlens,
    config::{ModelConfig, ModelKind},
    error::Result,
    head_config::FittedHead,
    linear::Linear,
    pooling::{normalize, pool},
    weights::TensorSpec,
};

/// A classifier, or a regression, of whole sequences.
#[derive(Debug, Clone)]
pub struct SequenceClassifier {
    features: Features,
    output: Linear,
}

/// The input of the last map.
#[derive(Debug, Clone)]
enum Features {
    /// The first token's state through a linear map and tanh.
    First(Pooler),
    /// The sequence's embedding, for heads that `polylance fit` made.
    Pooled { pooling: Pooling, normalize: bool },
}

/// The names of both maps.
pub(crate) fn names(kind: ModelKind) -> (&'static str, &'static str) {
    match kind {
        ModelKind::XlmRobertaXl | ModelKind::XlmRoberta => ("classifier.dense", "classifier.out_proj"),
        ModelKind::Bert => ("pooler.dense", "classifier"),
    }
}

/// The tensors that [`SequenceClassifier::load`] reads.
pub(super) fn tensors(config: &ModelConfig, labels: usize) -> Vec<TensorSpec> {
    let (dense, output) = names(config.kind);
    let hidden = config.hidden_size;
    [TensorSpec::linear(dense, hidden, hidden), TensorSpec::linear(output, labels, hidden)].concat()
}

impl SequenceClassifier {
    /// Loads the head under Hugging Face's names, which depend on the kind.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{CuSeqlens, ModelConfig, SequenceClassifier};
    ///
    /// let config = ModelConfig::tiny();
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let head = SequenceClassifier::load(vb, &config, 3)?;
    /// let hidden_states = Tensor::randn(0f32, 1., (5, config.hidden_size), &Device::Cpu)?;
    /// let logits = head.forward(&hidden_states, &CuSeqlens::new(vec![0, 3, 5], 5)?)?;
    /// assert_eq!(logits.dims(), [2, 3]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(vb: VarBuilder<'_>, config: &ModelConfig, labels: usize) -> Result<Self> {
        let (dense, output) = names(config.kind);
        Ok(Self {
            features: Features::First(Pooler::load(vb.pp(dense), config)?),
            output: Linear::load(config.hidden_size, labels, vb.pp(output))?,
        })
    }

    /// Loads a head that is one linear map of the pooled vector: `classifier`.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn load_fitted(vb: VarBuilder<'_>, config: &ModelConfig, labels: usize, fitted: &FittedHead) -> Result<Self> {
        Ok(Self {
            features: Features::Pooled { pooling: fitted.pooling, normalize: fitted.normalize },
            output: Linear::load(config.hidden_size, labels, vb.pp("classifier"))?,
        })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns the logits: `[sequences, labels]`.
    ///
    /// Source: `XLMRobertaXLClassificationHead` and `BertForSequenceClassification` in transformers 5.23.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        let features = match &self.features {
            Features::First(pooler) => pooler.forward(hidden_states, cu_seqlens)?,
            Features::Pooled { pooling, normalize: unit_length } => {
                let width = hidden_states.dim(1)?;
                let mut vectors = pool(hidden_states, cu_seqlens, *pooling)?;
                if *unit_length {
                    vectors.chunks_exact_mut(width).for_each(normalize);
                }
                let vectors = Tensor::from_vec(vectors, (cu_seqlens.sequences(), width), hidden_states.device())?;
                vectors.to_dtype(hidden_states.dtype())?
            }
        };
        self.output.forward(&features)
    }
}
