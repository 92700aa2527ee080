//! Whether a model's layers stay in the CPU's memory, or are streamed from their files. For a GPU: `cuda/plan.rs`.

use polylance_schema::Dtype;
use serde::Serialize;

use crate::{
    available_memory::available_memory,
    config::{ModelConfig, NormPlacement},
    dtype,
    embeddings::{Embeddings, WORD_EMBEDDINGS},
    error::{ModelError, Result, size},
    head_config::HeadConfig,
    head_kind::HeadKind,
    heads::{DecoderTensors, Head},
    layer::Layer,
    norm::LayerNorm,
    weights::{TensorSpec, Weights},
};

/// Layers in memory while a model is streamed: the one that computes, and the next.
const STREAMED_LAYERS: u64 = 2;

/// Tokens that pass through a streamed layer at once: enough for all cores, few enough for the intermediate results.
const PART_TOKENS: usize = 8192;

/// A model without a limit stays in memory up to this share of the available memory, in quarters.
const RESIDENT_QUARTERS: u64 = 3;

/// Where the layers of a model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerPlacement {
    /// In memory.
    Resident,
    /// In their files.
    Streamed {
        /// Tokens that pass through a layer at once.
        part_tokens: usize,
    },
}

impl LayerPlacement {
    /// Streamed in parts of at most `batch_tokens` tokens if there is a plan for it.
    pub(crate) fn new(streaming: Option<Streaming>, batch_tokens: Option<usize>) -> Self {
        match streaming {
            Some(_) => {
                Self::Streamed { part_tokens: batch_tokens.map_or(PART_TOKENS, |tokens| tokens.min(PART_TOKENS)) }
            }
            None => Self::Resident,
        }
    }
}

/// The sizes of a model whose layers are streamed: to the CPU from their files, or to a GPU from the host's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Streaming {
    /// Bytes of a layer where it computes. There are at most two.
    pub layer_bytes: u64,
    /// Tokens whose states fit into the rest of the memory limit; on a GPU, the tokens of a batch.
    pub state_tokens: usize,
}

/// The most bytes of the host's memory that a model may take: `memory`, or without it three quarters of the available
/// memory. `None` if that is unknown.
pub(crate) fn host_limit(memory: Option<u64>, available: impl FnOnce() -> Option<u64>) -> Option<u64> {
    memory.or_else(|| Some(available()? / 4 * RESIDENT_QUARTERS))
}

impl Streaming {
    /// The sizes of a model on the CPU without a head that may take `memory` bytes, or without a limit three quarters of the
    /// available memory; `None` if it stays in memory.
    ///
    /// # Errors
    /// [`ModelError::MemoryLimit`] for a limit below two layers and everything outside of the layers.
    pub fn plan(config: &ModelConfig, dtype: Dtype, memory: Option<u64>) -> Result<Option<Self>> {
        WeightBytes::new(config, dtype, &HeadWeights::default()).place(memory, available_memory)
    }
}

/// The tensors of a head, and their bytes in the CPU's memory.
#[derive(Debug, Default)]
pub(crate) struct HeadWeights {
    pub(crate) tensors: Vec<TensorSpec>,
    /// Bytes that are always in memory.
    bytes: u64,
    /// Bytes of the vocabulary of a model that generates, which is in memory only if all layers are.
    vocabulary: u64,
    /// Whether the head reads the word embeddings of the encoder.
    pub(crate) has_tied_words: bool,
}

impl HeadWeights {
    pub(crate) fn of_head(kind: HeadKind, config: &ModelConfig, head: &HeadConfig, weights: &Weights) -> Result<Self> {
        let tensors = Head::tensors(kind, config, head, weights)?;
        let table = [config.vocab_size, config.hidden_size];
        let bytes = |shape: &[usize]| (shape.iter().product::<usize>() * size_of::<f32>()) as u64;
        let is_tied = || DecoderTensors::find(config, head.tie_word_embeddings, weights).table == WORD_EMBEDDINGS;
        Ok(Self {
            has_tied_words: matches!(kind, HeadKind::MaskedLm | HeadKind::CausalLm) && is_tied(),
            bytes: tensors.iter().filter(|spec| spec.shape != table).map(|spec| bytes(&spec.shape)).sum(),
            vocabulary: if kind == HeadKind::CausalLm { bytes(&table) } else { 0 },
            tensors,
        })
    }

    /// A head without tensors of its own that reads the word embeddings.
    #[cfg(test)]
    pub(crate) fn tied() -> Self {
        Self { has_tied_words: true, ..Self::default() }
    }

    /// Bytes on a GPU whose matrices have numbers of `width` bytes. Word embeddings are those of the encoder.
    pub(crate) fn device_bytes(&self, width: usize) -> u64 {
        let bytes = |spec: &TensorSpec| {
            let width = if spec.shape.len() > 1 { width } else { size_of::<f32>() };
            (spec.shape.iter().product::<usize>() * width) as u64
        };
        self.tensors.iter().filter(|spec| spec.name != WORD_EMBEDDINGS).map(bytes).sum()
    }
}

/// Bytes of a model's weights in the CPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WeightBytes {
    dtype: Dtype,
    /// Outside of the layers: always in memory.
    outside: u64,
    layer: u64,
    layers: u64,
    /// In memory only if all layers are.
    vocabulary: u64,
    /// The states of one token.
    token_states: u64,
}

impl WeightBytes {
    pub(crate) fn new(config: &ModelConfig, dtype: Dtype, head: &HeadWeights) -> Self {
        let last_norm = match config.kind.norm_placement() {
            NormPlacement::Pre => LayerNorm::bytes_for(config.hidden_size),
            NormPlacement::Post => 0,
        };
        Self {
            dtype,
            outside: Embeddings::bytes_for(config) + last_norm + head.bytes,
            layer: Layer::bytes_for(dtype::precision(dtype), config),
            layers: config.num_hidden_layers as u64,
            vocabulary: head.vocabulary,
            token_states: (config.hidden_size * size_of::<f32>()) as u64,
        }
    }

    fn resident(&self) -> u64 {
        self.outside + self.layers * self.layer + self.vocabulary
    }

    fn streamed(&self) -> u64 {
        self.outside + self.layers.min(STREAMED_LAYERS) * self.layer
    }

    /// As [`Streaming::plan`]; `available` returns the available memory, and is called only without a limit.
    pub(crate) fn place(
        &self,
        memory: Option<u64>,
        available: impl FnOnce() -> Option<u64>,
    ) -> Result<Option<Streaming>> {
        let (resident, streamed) = (self.resident(), self.streamed());
        if let Some(limit) = memory.filter(|&limit| limit < streamed) {
            return Err(ModelError::MemoryLimit { limit, dtype: self.dtype.to_string(), resident, streamed });
        }
        let Some(limit) = host_limit(memory, available) else { return Ok(None) };
        if resident <= limit || resident <= streamed {
            return Ok(None);
        }
        let state_tokens = limit.saturating_sub(streamed) / self.token_states;
        let state_tokens = usize::try_from(state_tokens).unwrap_or(usize::MAX);
        Ok(Some(Streaming { layer_bytes: self.layer, state_tokens }))
    }

    /// Logs that the model is streamed.
    pub(crate) fn log_streamed(&self, memory: Option<u64>) {
        let (weights, in_memory) = (size(self.resident()), size(self.streamed()));
        if let Some(limit) = memory {
            let limit = size(limit);
            tracing::info!(
                weights,
                limit,
                in_memory,
                "the model is larger than its memory limit: its layers are read again for every window of tokens"
            );
        } else {
            tracing::warn!(
                weights,
                in_memory,
                "the model is larger than three quarters of the available memory: its layers are read again for every \
                 window of tokens"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use polylance_schema::Explain as _;

    use super::*;

    fn bytes(layers: usize) -> WeightBytes {
        let config = ModelConfig { num_hidden_layers: layers, ..ModelConfig::tiny() };
        WeightBytes::new(&config, Dtype::F32, &HeadWeights::default())
    }

    #[test]
    fn sizes_of_a_large_model_are_those_of_its_geometry() {
        let config = ModelConfig::xl();
        for (dtype, width, per_column) in [(Dtype::F32, 4, 0), (Dtype::Bf16, 2, 0), (Dtype::Int8, 1, 8)] {
            let bytes = WeightBytes::new(&config, dtype, &HeadWeights::default());
            let columns = 3 * 2560 + 2560 + 10_240 + 2560;
            assert_eq!(bytes.layer, 12 * 2560 * 2560 * width + columns * (4 + per_column) + 4 * 2560 * 4, "{dtype}");
            assert_eq!(bytes.outside, (514 + 2 + 2) * 2560 * 4);
            assert_eq!(bytes.streamed(), bytes.outside + 2 * bytes.layer);
        }
    }

    #[test]
    fn model_is_streamed_above_the_limit_and_refused_below_two_layers() {
        let bytes = bytes(6);
        let place = |memory| bytes.place(Some(memory), || panic!("the limit is given"));
        assert_eq!(place(bytes.resident()).unwrap(), None);
        let rest = bytes.resident() - 1 - bytes.streamed();
        let streaming = Streaming { layer_bytes: bytes.layer, state_tokens: (rest / 64) as usize };
        assert_eq!(place(bytes.resident() - 1).unwrap(), Some(streaming));
        assert_eq!(place(bytes.streamed()).unwrap(), Some(Streaming { state_tokens: 0, ..streaming }));
        let error = place(bytes.streamed() - 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the model may take {} B of memory, and in f32 it takes {} B, or at least {} B if its layers are streamed",
                bytes.streamed() - 1,
                bytes.resident(),
                bytes.streamed()
            )
        );
        let hint = error.hint().unwrap().into_owned();
        assert!(hint.contains(&format!("\"{} B\" or more", bytes.streamed())), "{hint}");
    }

    #[test]
    fn without_a_limit_three_quarters_of_the_memory_count() {
        let bytes = bytes(6);
        let place = |available| bytes.place(None, || available).unwrap();
        assert_eq!(place(None), None);
        assert_eq!(place(Some(bytes.resident().div_ceil(3) * 4)), None);
        assert!(place(Some(bytes.resident())).is_some());
        assert_eq!(place(Some(0)).map(|streaming| streaming.state_tokens), Some(0));
    }

    #[test]
    fn model_of_two_layers_is_never_streamed() {
        let bytes = bytes(2);
        assert_eq!(bytes.place(None, || Some(0)).unwrap(), None);
        assert_eq!(bytes.place(Some(bytes.streamed()), || None).unwrap(), None);
    }
}
