//! The encoder: embeddings, layers, and the last norm of the pre-norm kinds.

use std::sync::Arc;

use candle_core::Tensor;
use polylance_kernels::Precision;
use rayon::prelude::*;

use polylance_schema::Dtype;

use crate::{
    arena::Arena,
    batch::{CuSeqlens, PackedBatch},
    config::{ModelConfig, NormPlacement},
    dtype,
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
    /// The precision of the layers' packed weights.
    precision: Precision,
    norm: Option<LayerNorm>,
}

/// The layers, in memory or in their files.
#[derive(Debug, Clone)]
enum Layers {
    /// Ready to compute.
    Resident(Vec<Layer>),
    /// In the files, in half precision: each layer is widened when it is computed.
    Mapped { weights: Arc<Weights>, config: ModelConfig },
}

impl Encoder {
    pub(crate) fn load(weights: &Arc<Weights>, config: &ModelConfig, dtype: Dtype, per_layer: bool) -> Result<Self> {
        let precision = dtype::precision(dtype);
        let vb = weights.var_builder().pp("encoder");
        let layers = if per_layer {
            Layers::Mapped { weights: Arc::clone(weights), config: config.clone() }
        } else {
            let packing = Packing::from_files(precision, weights);
            let layers = (0..config.num_hidden_layers)
                .into_par_iter()
                .map(|layer| Layer::load(vb.pp(format!("layer.{layer}")), config, Some(&packing)));
            Layers::Resident(layers.collect::<Result<_>>()?)
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
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        let embedded = self.embeddings.forward(batch, &cu_seqlens)?;
        let hidden_states = Arena::compute(&embedded, self.precision, |arena| {
            self.each_layer(|_, layer| layer.forward_in(arena, &cu_seqlens))
        })?;
        self.last_norm(hidden_states)
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
            Layers::Mapped { weights, config } => {
                let vb = weights.var_builder().pp("encoder.layer");
                let packing = Packing::from_files(self.precision, weights);
                (0..config.num_hidden_layers)
                    .try_for_each(|number| step(number, &Layer::load(vb.pp(number), config, Some(&packing))?))
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
