//! The part of a model on one GPU: all its layers, or consecutive ones while the others are on other GPUs.

use std::{ops::Range, sync::Arc};

use polylance_cuda::{DeviceBuffer, Gpu, NumberType};

use super::{
    buffers::{Buffers, StateBytes},
    layer_weights::LayerWeights,
    layout::{Geometry, ModelLayout, Tensors},
    plan::Plan,
    upload::Source,
};
use crate::{config::ModelConfig, error::Result};

/// Layers on a GPU, and its memory of a batch.
pub(super) struct Stage {
    pub(super) gpu: Arc<Gpu>,
    pub(super) config: ModelConfig,
    pub(super) numbers: NumberType,
    pub(super) geometry: Geometry,
    pub(super) tensors: Tensors,
    /// The tensors outside of the layers.
    pub(super) weights: DeviceBuffer,
    pub(super) layers: LayerWeights,
    pub(super) buffers: Buffers,
}

impl Stage {
    /// Loads layers, and everything that is read with them, onto a GPU.
    ///
    /// # Errors
    /// When the device has too little memory or fails.
    pub(super) fn load(
        gpu: &Arc<Gpu>,
        source: Source<'_>,
        config: &ModelConfig,
        geometry: Geometry,
        numbers: NumberType,
        layers: Range<usize>,
        plan: Plan,
    ) -> Result<Self> {
        let states = StateBytes::new(&layers, config.num_hidden_layers, plan.tokens, geometry.hidden);
        let layout = ModelLayout::new(config, &geometry, numbers, layers);
        let weights = DeviceBuffer::new(gpu, layout.outside.bytes)?;
        let layers_on_device = plan.residency.layers_on_device(layout.layers.len());
        let layers = DeviceBuffer::new(gpu, layers_on_device * layout.layer_bytes)?;
        let buffers = Buffers::new(gpu, &geometry, numbers, plan, states)?;
        let layers = LayerWeights::load(&layout, source, plan.residency, &weights, layers)?;
        Ok(Self {
            gpu: Arc::clone(gpu),
            config: config.clone(),
            numbers,
            geometry,
            tensors: layout.tensors,
            weights,
            layers,
            buffers,
        })
    }
}
