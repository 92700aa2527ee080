//! The encoder: embeddings, layers, and the last norm of the pre-norm kinds.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use polylance_kernels::Precision;
use rayon::prelude::*;

use crate::{
    arena::Arena,
    batch::{CuSeqlens, PackedBatch},
    config::{ModelConfig, NormPlacement},
    dtype::Dtype,
    embeddings::Embeddings,
    error::Result,
    key_values::KeyValues,
    layer::Layer,
    norm::LayerNorm,
    packing::Packing,
    weights::Weights,
};

/// XLM-RoBERTa-XL, XLM-RoBERTa or BERT without its heads.
#[derive(Debug, Clone)]
pub struct Encoder {
    embeddings: Embeddings,
    layers: Layers,
    /// That of the layers' packed weights, where the CPU's own kernels compute them.
    precision: Option<Precision>,
    norm: Option<LayerNorm>,
}

/// How the layers lie in memory.
#[derive(Debug, Clone)]
enum Layers {
    /// Ready to compute.
    Resident(Vec<Layer>),
    /// In the files, in half precision: each is widened when its turn comes.
    Mapped { weights: Arc<Weights>, config: ModelConfig, dtype: DType, device: Device },
}

impl Encoder {
    pub(crate) fn load(
        weights: &Arc<Weights>,
        config: &ModelConfig,
        dtype: Dtype,
        device: &Device,
        per_layer: bool,
    ) -> Result<Self> {
        let (precision, dtype) = (dtype.precision(device), dtype.tensors(device));
        let vb = weights.var_builder(dtype, device).pp("encoder");
        let layers = if per_layer {
            let (weights, config) = (Arc::clone(weights), config.clone());
            Layers::Mapped { weights, config, dtype, device: device.clone() }
        } else {
            let packing = precision.map(|precision| Packing::from_files(precision, weights));
            let layers = (0..config.num_hidden_layers)
                .into_par_iter()
                .map(|layer| Layer::load(vb.pp(format!("layer.{layer}")), config, packing.as_ref()));
            Layers::Resident(layers.collect::<Result<_>>()?)
        };
        let norm = match config.kind.norm_placement() {
            NormPlacement::Pre => Some(LayerNorm::load(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?),
            NormPlacement::Post => None,
        };
        Ok(Self { embeddings: Embeddings::load(weights, config, dtype, device)?, layers, precision, norm })
    }

    /// The last hidden states: `[total_tokens, hidden]`.
    ///
    /// Source: `XLMRobertaXLModel`, `XLMRobertaModel` and `BertModel` in transformers 5.23.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn forward(&self, batch: &PackedBatch) -> Result<Tensor> {
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        let embedded = self.embeddings.forward(batch, &cu_seqlens)?;
        let Some(precision) = self.precision else {
            return self.through(embedded, |_, layer, hidden_states| layer.forward(hidden_states, &cu_seqlens));
        };
        let hidden_states = Arena::compute(&embedded, precision, |arena| {
            self.each_layer(|_, layer| layer.forward_in(arena, &cu_seqlens))
        })?;
        self.last_norm(hidden_states)
    }

    /// As [`Encoder::forward`], but no token attends to one after it.
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

    /// The next tokens of one sequence, `[new_tokens, hidden]`, of which `before` have their keys and values kept, a
    /// layer each. Positions count from 0.
    pub(crate) fn forward_cached(&self, ids: &[u32], before: usize, kept: &mut [KeyValues]) -> Result<Tensor> {
        let embedded = self.embeddings.forward_at(ids, before)?;
        self.through(embedded, |number, layer, hidden_states| layer.forward_cached(hidden_states, &mut kept[number]))
    }

    /// The word embeddings where they lie on the device; `None` where they stay in their file.
    pub(crate) fn resident_words(&self) -> Option<&Tensor> {
        self.embeddings.resident_words()
    }

    /// Takes token states through every layer and the last norm; `step` computes one layer, given its number.
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
            Layers::Mapped { weights, config, dtype, device } => {
                let vb = weights.var_builder(*dtype, device).pp("encoder.layer");
                let packing = self.precision.map(|precision| Packing::from_files(precision, weights));
                (0..config.num_hidden_layers)
                    .try_for_each(|number| step(number, &Layer::load(vb.pp(number), config, packing.as_ref())?))
            }
        }
    }

    fn last_norm(&self, hidden_states: Tensor) -> Result<Tensor> {
        match &self.norm {
            Some(norm) => norm.forward(&hidden_states),
            None => Ok(hidden_states),
        }
    }
}
