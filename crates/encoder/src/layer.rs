//! One transformer layer.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use polylance_kernels::Precision;

use crate::{
    arena::Arena,
    attention::SelfAttention,
    batch::CuSeqlens,
    config::{ModelConfig, NormPlacement},
    error::Result,
    key_values::KeyValues,
    linear::Linear,
    norm::LayerNorm,
    packing::Packing,
};

/// Attention and feed-forward block, each with its residual and norm.
#[derive(Debug, Clone)]
pub struct Layer {
    placement: NormPlacement,
    attention: SelfAttention,
    attention_output: Linear,
    /// Before the attention, or after it.
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    /// Before the feed-forward block, or after it.
    feed_forward_norm: LayerNorm,
}

impl Layer {
    /// Loads a layer under Hugging Face's names, which depend on the norm placement; its maps are packed by
    /// `packing`, or in f32 without one.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{CuSeqlens, Layer, ModelConfig};
    ///
    /// let config = ModelConfig::tiny();
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let layer = Layer::load(vb.pp("encoder.layer.0"), &config, None)?;
    /// let hidden_states = Tensor::randn(0f32, 1., (5, config.hidden_size), &Device::Cpu)?;
    /// let hidden_states = layer.forward(&hidden_states, &CuSeqlens::new(vec![0, 3, 5], 5)?)?;
    /// assert_eq!(hidden_states.dims(), [5, config.hidden_size]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(vb: VarBuilder<'_>, config: &ModelConfig, packing: Option<&Packing>) -> Result<Self> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let placement = config.kind.norm_placement();
        let (attention_norm, feed_forward_norm) = match placement {
            NormPlacement::Pre => ("attention.self_attn_layer_norm", "LayerNorm"),
            NormPlacement::Post => ("attention.output.LayerNorm", "output.LayerNorm"),
        };
        let linear = |inputs, outputs, name| Linear::load_joined(inputs, outputs, &[vb.pp(name)], packing);
        Ok(Self {
            placement,
            attention: SelfAttention::load(vb.pp("attention.self"), config, packing)?,
            attention_output: linear(hidden, hidden, "attention.output.dense")?,
            attention_norm: LayerNorm::load(hidden, config.layer_norm_eps, vb.pp(attention_norm))?,
            intermediate: linear(hidden, wide, "intermediate.dense")?,
            output: linear(wide, hidden, "output.dense")?,
            feed_forward_norm: LayerNorm::load(hidden, config.layer_norm_eps, vb.pp(feed_forward_norm))?,
        })
    }

    /// Bytes in memory of a layer whose maps are packed in `precision`.
    pub(crate) fn bytes_for(precision: Precision, config: &ModelConfig) -> u64 {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let maps = [(hidden, 3 * hidden), (hidden, hidden), (hidden, wide), (wide, hidden)];
        let maps: u64 = maps.iter().map(|(inputs, outputs)| Linear::bytes_for(precision, *inputs, *outputs)).sum();
        maps + 2 * LayerNorm::bytes_for(hidden)
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns the same shape.
    ///
    /// Source: `XLMRobertaXLLayer` and `XLMRobertaLayer` in transformers 5.23.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        self.compute(hidden_states, |input| self.attention.forward(input, cu_seqlens))
    }

    /// As [`Layer::forward`], on the states in the arena.
    pub(crate) fn forward_in(&self, arena: &mut Arena, cu_seqlens: &CuSeqlens) -> Result<()> {
        if self.placement == NormPlacement::Pre {
            arena.norm_input(&self.attention_norm)?;
        }
        self.attention.forward_in(arena, cu_seqlens)?;
        arena.add_context(&self.attention_output)?;
        match self.placement {
            NormPlacement::Pre => arena.norm_input(&self.feed_forward_norm)?,
            NormPlacement::Post => arena.norm_states(&self.attention_norm)?,
        }
        arena.project_gelu(&self.intermediate)?;
        arena.add_wide(&self.output)?;
        if self.placement == NormPlacement::Post {
            arena.norm_states(&self.feed_forward_norm)?;
        }
        Ok(())
    }

    /// As [`Layer::forward`], but tokens attend only to themselves and earlier ones.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward_causal(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        self.compute(hidden_states, |input| self.attention.forward_causal(input, cu_seqlens))
    }

    /// The next tokens of one sequence: `[new_tokens, hidden]`.
    pub(crate) fn forward_cached(&self, hidden_states: &Tensor, kept: &mut KeyValues) -> Result<Tensor> {
        self.compute(hidden_states, |input| self.attention.forward_cached(input, kept))
    }

    fn compute(&self, hidden_states: &Tensor, attend: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let attend = |input: &Tensor| self.attention_output.forward_residual(&attend(input)?, hidden_states);
        match self.placement {
            NormPlacement::Pre => {
                let hidden_states = attend(&self.attention_norm.forward(hidden_states)?)?;
                let normed = self.feed_forward_norm.forward(&hidden_states)?;
                self.feed_forward(&normed, &hidden_states)
            }
            NormPlacement::Post => {
                let hidden_states = self.attention_norm.forward(&attend(hidden_states)?)?;
                let hidden_states = self.feed_forward(&hidden_states, &hidden_states)?;
                self.feed_forward_norm.forward(&hidden_states)
            }
        }
    }

    fn feed_forward(&self, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.output.forward_residual(&self.intermediate.forward_gelu(input)?, residual)
    }
}
