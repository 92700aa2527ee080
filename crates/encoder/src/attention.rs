//! Multi-head self-attention over a packed batch.

use candle_core::{DType, Tensor};
use candle_nn::{VarBuilder, ops::softmax_last_dim};
use rayon::prelude::*;

use crate::{
    arena::Arena, batch::CuSeqlens, config::ModelConfig, error::Result, key_values::KeyValues, linear::Linear,
    packing::Packing,
};

/// The tokens of a sequence that a token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Every token.
    Both,
    /// Itself and the earlier ones.
    Causal,
}

/// Multi-head self-attention without its output map, norm and residual.
#[derive(Debug, Clone)]
pub struct SelfAttention {
    /// Query, key and value in one map: `[hidden]` to `[3 * hidden]`.
    query_key_value: Linear,
    heads: usize,
    head_size: usize,
    scale: f32,
}

impl SelfAttention {
    /// Loads `query`, `key` and `value` and joins them into one map, packed by `packing`, or in f32
    /// without one.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{CuSeqlens, ModelConfig, SelfAttention};
    ///
    /// let config = ModelConfig::tiny();
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let attention = SelfAttention::load(vb, &config, None)?;
    /// let hidden_states = Tensor::randn(0f32, 1., (5, config.hidden_size), &Device::Cpu)?;
    /// let context = attention.forward(&hidden_states, &CuSeqlens::new(vec![0, 3, 5], 5)?)?;
    /// assert_eq!(context.dims(), [5, config.hidden_size]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(vb: VarBuilder<'_>, config: &ModelConfig, packing: Option<&Packing>) -> Result<Self> {
        let hidden = config.hidden_size;
        let parts = ["query", "key", "value"].map(|part| vb.pp(part));
        let scale = 1.0 / (config.head_size() as f32).sqrt();
        Ok(Self {
            query_key_value: Linear::load_joined(hidden, hidden, &parts, packing)?,
            heads: config.num_attention_heads,
            head_size: config.head_size(),
            scale,
        })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns `[total_tokens, hidden]`: the heads' contexts side by side,
    /// before the output map. No token attends outside its own sequence.
    ///
    /// Source: `XLMRobertaXLSelfAttention` in transformers 5.23.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        self.attend(hidden_states, cu_seqlens, Direction::Both)
    }

    /// As [`SelfAttention::forward`], by our CPU kernels in the arena.
    pub(crate) fn forward_in(&self, arena: &mut Arena, cu_seqlens: &CuSeqlens) -> Result<()> {
        let kernel = polylance_kernels::SelfAttention::new(self.heads, self.head_size, self.scale);
        arena.project(&self.query_key_value)?;
        arena.attend(&kernel, cu_seqlens.as_slice());
        Ok(())
    }

    /// As [`SelfAttention::forward`], but tokens attend only to themselves and earlier ones.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward_causal(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        self.attend(hidden_states, cu_seqlens, Direction::Causal)
    }

    /// The causal attention of the next tokens of one sequence, `[new_tokens, hidden]`, to themselves and to
    /// the cached tokens; their own keys and values are added to the cache.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn forward_cached(&self, hidden_states: &Tensor, kept: &mut KeyValues) -> Result<Tensor> {
        let query_key_value = self.query_key_value(hidden_states)?;
        let (key, value) = kept.extend(&self.part(&query_key_value, 1)?, &self.part(&query_key_value, 2)?)?;
        self.context(&self.part(&query_key_value, 0)?, &key, &value, Direction::Causal)
    }

    fn attend(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens, direction: Direction) -> Result<Tensor> {
        let query_key_value = self.query_key_value(hidden_states)?;
        self.packed(&query_key_value, cu_seqlens, direction)
    }

    /// `[tokens, 3 * heads, head_size]`.
    fn query_key_value(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let tokens = hidden_states.dim(0)?;
        let query_key_value = self.query_key_value.forward(hidden_states)?.to_dtype(DType::F32)?;
        Ok(query_key_value.reshape((tokens, 3 * self.heads, self.head_size))?)
    }

    /// Computes the sequences in parallel on the device's threads.
    fn packed(&self, query_key_value: &Tensor, cu_seqlens: &CuSeqlens, direction: Direction) -> Result<Tensor> {
        let ranges: Vec<_> = cu_seqlens.ranges().collect();
        let one = |range: &std::ops::Range<usize>| {
            self.sequence(&query_key_value.narrow(0, range.start, range.len())?, direction)
        };
        let contexts: Vec<Tensor> = ranges.par_iter().map(one).collect::<Result<_>>()?;
        Ok(Tensor::cat(&contexts, 0)?)
    }

    /// `[tokens, 3 * heads, head_size]` of one sequence to `[tokens, hidden]`.
    fn sequence(&self, query_key_value: &Tensor, direction: Direction) -> Result<Tensor> {
        let part = |index| self.part(query_key_value, index);
        self.context(&part(0)?, &part(1)?, &part(2)?, direction)
    }

    /// Queries, keys or values as `[heads, tokens, head_size]`, without a copy: the products take any strides.
    fn part(&self, query_key_value: &Tensor, index: usize) -> Result<Tensor> {
        Ok(query_key_value.narrow(1, index * self.heads, self.heads)?.transpose(0, 1)?)
    }

    /// `query`: `[heads, tokens, head_size]` of a sequence's last tokens; `key` and `value` of all. Returns
    /// `[tokens, hidden]`.
    fn context(&self, query: &Tensor, key: &Tensor, value: &Tensor, direction: Direction) -> Result<Tensor> {
        let tokens = query.dim(1)?;
        let mut scores = query.matmul(&key.transpose(1, 2)?)?;
        if direction == Direction::Causal && tokens > 1 {
            scores = scores.broadcast_add(&causal_mask(tokens, key.dim(1)?, &scores)?)?;
        }
        let dtype = scores.dtype();
        let scores = (scores.to_dtype(DType::F32)? * f64::from(self.scale))?;
        let probabilities = softmax_last_dim(&scores)?.to_dtype(dtype)?;
        let context = probabilities.matmul(value)?;
        Ok(context.transpose(0, 1)?.reshape((tokens, self.heads * self.head_size))?)
    }
}

/// `[tokens, all]`, in the format of `like`: 0 where one of a sequence's last tokens attends, and
/// minus infinity for the tokens after it.
fn causal_mask(tokens: usize, all: usize, like: &Tensor) -> Result<Tensor> {
    let before = all - tokens;
    let row = |token| (0..all).map(move |other| if other <= before + token { 0.0 } else { f32::NEG_INFINITY });
    let mask: Vec<f32> = (0..tokens).flat_map(row).collect();
    Ok(Tensor::from_vec(mask, (tokens, all), like.device())?.to_dtype(like.dtype())?)
}
