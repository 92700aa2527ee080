//! The encoder: embeddings, layers, and the last norm of the pre-norm kinds.

use std::sync::Arc;

use candle_core::Tensor;
use polylance_kernels::Precision;
use rayon::prelude::*;

use polylance_schema::Dtype;

use crate::{
    arena::{Arena, WaitingStates},
    batch::{BatchPart, CuSeqlens, PackedBatch},
    config::{ModelConfig, NormPlacement},
    dtype,
    embeddings::Embeddings,
    error::{ModelError, Result},
    key_values::KeyValues,
    layer::Layer,
    layer_stream::LayerStream,
    norm::LayerNorm,
    packing::Packing,
    residency::LayerPlacement,
    weights::Weights,
};

/// XLM-RoBERTa-XL, XLM-RoBERTa or BERT without its heads.
#[derive(Debug, Clone)]
pub struct Encoder {
    embeddings: Embeddings,
    layers: Layers,
    /// The precision of the layers' packed weights.
    precision: Precision,
    norm: Option<LayerNorm>,
}

/// The layers, in memory or in their files.
#[derive(Debug, Clone)]
enum Layers {
    /// In memory: a batch passes through all of them at once.
    Resident(Vec<Layer>),
    /// In their files: all parts of a batch pass through a layer before the next one is read.
    Streamed { layers: LayerStream, part_tokens: usize },
}

/// The last hidden states of neighbouring sequences of a batch.
#[derive(Debug)]
pub(crate) struct EncodedPart {
    /// `[total_tokens, hidden]`.
    pub(crate) hidden_states: Tensor,
    pub(crate) cu_seqlens: CuSeqlens,
    /// Tokens of the batch before it.
    pub(crate) first_token: usize,
}

/// A part of a batch on its way through the layers.
struct WaitingPart {
    states: WaitingStates,
    cu_seqlens: CuSeqlens,
    first_token: usize,
}

impl Encoder {
    pub(crate) fn load(
        weights: &Arc<Weights>,
        config: &ModelConfig,
        dtype: Dtype,
        placement: LayerPlacement,
    ) -> Result<Self> {
        let precision = dtype::precision(dtype);
        let vb = weights.var_builder().pp("encoder");
        let layers = match placement {
            LayerPlacement::Streamed { part_tokens } => {
                Layers::Streamed { layers: LayerStream::new(weights, config, precision), part_tokens }
            }
            LayerPlacement::Resident => {
                let packing = Packing::from_files(precision, weights);
                let layers = (0..config.num_hidden_layers)
                    .into_par_iter()
                    .map(|layer| Layer::load(vb.pp(format!("layer.{layer}")), config, Some(&packing)));
                Layers::Resident(layers.collect::<Result<_>>()?)
            }
        };
        let norm = match config.kind.norm_placement() {
            NormPlacement::Pre => Some(LayerNorm::load(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?),
            NormPlacement::Post => None,
        };
        Ok(Self { embeddings: Embeddings::load(weights, config)?, layers, precision, norm })
    }

    /// The last hidden states: `[total_tokens, hidden]`.
    ///
    /// Source: `XLMRobertaXLModel`, `XLMRobertaModel` and `BertModel` in transformers 5.23.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn forward(&self, batch: &PackedBatch) -> Result<Tensor> {
        let mut parts = Vec::new();
        self.each_part(batch, |part| {
            parts.push(part.hidden_states);
            Ok(())
        })?;
        match <[Tensor; 1]>::try_from(parts) {
            Ok([whole]) => Ok(whole),
            Err(parts) => Ok(Tensor::cat(&parts, 0)?),
        }
    }

    /// Calls `read` with the last hidden states of the batch, which are one part if the layers are in memory, and parts
    /// of bounded size otherwise. Where a batch is cut changes no bit of any state.
    ///
    /// # Errors
    /// As [`Encoder::forward`], and those of `read`.
    pub(crate) fn each_part(&self, batch: &PackedBatch, mut read: impl FnMut(EncodedPart) -> Result<()>) -> Result<()> {
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        let (layers, part_tokens) = match &self.layers {
            Layers::Streamed { layers, part_tokens } => (layers, *part_tokens),
            Layers::Resident(layers) => {
                let embedded = self.embeddings.forward(batch, &cu_seqlens)?;
                let hidden_states = Arena::compute(&embedded, self.precision, |arena| {
                    layers.iter().try_for_each(|layer| layer.forward_in(arena, &cu_seqlens))
                })?;
                return read(EncodedPart { hidden_states: self.last_norm(hidden_states)?, cu_seqlens, first_token: 0 });
            }
        };
        let parts = batch.parts(&cu_seqlens, part_tokens);
        let mut waiting = parts.iter().map(|part| self.embed_part(part)).collect::<Result<Vec<_>>>()?;
        layers.each_layer(|_, layer| {
            waiting.iter_mut().try_for_each(|WaitingPart { states, cu_seqlens, .. }| {
                Arena::resume(states, self.precision, |arena| layer.forward_in(arena, cu_seqlens))
            })
        })?;
        for WaitingPart { states, cu_seqlens, first_token } in waiting {
            let hidden_states = self.last_norm(states.into_tensor()?)?;
            read(EncodedPart { hidden_states, cu_seqlens, first_token })?;
        }
        Ok(())
    }

    fn embed_part(&self, part: &BatchPart) -> Result<WaitingPart> {
        let BatchPart { batch, first_sequence, first_token } = part;
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        let of_batch = |error: ModelError| error.after_sequences(*first_sequence);
        let embedded = self.embeddings.forward(batch, &cu_seqlens).map_err(of_batch)?;
        Ok(WaitingPart { states: WaitingStates::new(&embedded)?, cu_seqlens, first_token: *first_token })
    }

    /// As [`Encoder::forward`], but tokens attend only to themselves and earlier ones.
    ///
    /// Source: the same classes with `is_decoder`.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn forward_causal(&self, batch: &PackedBatch) -> Result<Tensor> {
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        let embedded = self.embeddings.forward(batch, &cu_seqlens)?;
        self.through(embedded, |_, layer, hidden_states| layer.forward_causal(hidden_states, &cu_seqlens))
    }

    /// The next tokens of one sequence, `[new_tokens, hidden]`. The keys and values of `before` earlier tokens are
    /// cached, per layer. Positions count from 0.
    pub(crate) fn forward_cached(&self, ids: &[u32], before: usize, kept: &mut [KeyValues]) -> Result<Tensor> {
        let embedded = self.embeddings.forward_at(ids, before)?;
        self.through(embedded, |number, layer, hidden_states| layer.forward_cached(hidden_states, &mut kept[number]))
    }

    /// Computes every layer and the last norm; `step` computes one layer, given its number.
    fn through(
        &self,
        mut hidden_states: Tensor,
        mut step: impl FnMut(usize, &Layer, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.each_layer(|number, layer| {
            hidden_states = step(number, layer, &hidden_states)?;
            Ok(())
        })?;
        self.last_norm(hidden_states)
    }

    /// Calls `step` with each layer and its number.
    fn each_layer(&self, mut step: impl FnMut(usize, &Layer) -> Result<()>) -> Result<()> {
        match &self.layers {
            Layers::Resident(layers) => layers.iter().enumerate().try_for_each(|(number, layer)| step(number, layer)),
            Layers::Streamed { layers, .. } => layers.each_layer(step),
        }
    }

    fn last_norm(&self, hidden_states: Tensor) -> Result<Tensor> {
        match &self.norm {
            Some(norm) => norm.forward(&hidden_states),
            None => Ok(hidden_states),
        }
    }
}
