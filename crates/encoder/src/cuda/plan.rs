//! The plan of the device memory: whether the layers stay there, and how many tokens a batch has.

use polylance_cuda::{Gpu, NumberType};
use polylance_schema::Dtype;

use super::{
    batch,
    buffers::BATCHES_IN_FLIGHT,
    layout::{Geometry, ModelLayout},
};
use crate::{
    available_memory::available_memory,
    config::ModelConfig,
    error::{ModelError, Result, size},
    loading::LoadOptions,
    residency::{HeadWeights, host_limit},
};

/// Kernels may touch rows up to a multiple of this many.
pub(super) const ROW_STEP: usize = 256;

/// Device memory in bytes that is left free for outputs, the driver and other programs.
const RESERVED_BYTES: u64 = 512 << 20;

/// Layers on the device while a model is streamed: the one that computes, and the next.
const STREAMED_LAYERS: usize = 2;

/// Tokens of a batch through streamed layers, if its memory allows it.
///
/// A copy is hidden if a batch's products with a layer take longer than copying the next layer. With `b` bytes per
/// number, `r` bytes per second over the bus and `f` operations per second, that is `tokens > b·f / (2·r)`, whatever
/// the size of the model: 24,000 tokens in bf16 for 25 GB/s and 600 T operations per second.
const STREAMED_TOKENS: usize = 32_768;

/// The tokens of a batch for a hidden size: enough for products that keep a whole GPU busy.
pub(super) fn suggested_tokens(hidden: usize) -> usize {
    match hidden {
        2048.. => 16_384,
        1024.. => 32_768,
        _ => 65_536,
    }
}

/// Where the weights of the layers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residency {
    /// On the device.
    Resident,
    /// In page-locked memory of the host: a layer is copied to the device when a batch needs it.
    Streamed,
}

impl Residency {
    /// Layers that are on the device at once, of `count`.
    pub(super) fn layers_on_device(self, count: usize) -> usize {
        match self {
            Self::Resident => count,
            Self::Streamed => STREAMED_LAYERS,
        }
    }
}

/// The largest numbers of tokens and sequences in a pass, and where the layers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) tokens: usize,
    pub(super) sequences: usize,
    pub(super) residency: Residency,
}

/// Bytes of device memory for a batch of `tokens` tokens.
fn batch_bytes(geometry: &Geometry, numbers: NumberType, tokens: usize) -> u64 {
    let row = 4 * geometry.hidden + numbers.bytes() * (2 * geometry.hidden + geometry.wide() + geometry.context());
    let block = 4 * batch::capacity(tokens, tokens);
    ((tokens.next_multiple_of(ROW_STEP) + ROW_STEP) * row + BATCHES_IN_FLIGHT * block) as u64
}

/// Bytes of the weights on a device that has all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WeightBytes {
    pub(super) resident: u64,
    /// With two layers; `None` for a model of at most two, where streaming saves nothing.
    streamed: Option<u64>,
}

impl WeightBytes {
    pub(super) fn new(layout: &ModelLayout, head_bytes: u64) -> Self {
        let (outside, layers) = (layout.outside.bytes as u64 + head_bytes, layout.layers.len());
        let with = |layers: usize| outside + (layers * layout.layer_bytes) as u64;
        Self { resident: with(layers), streamed: (layers > STREAMED_LAYERS).then(|| with(STREAMED_LAYERS)) }
    }

    fn least(&self) -> u64 {
        self.streamed.unwrap_or(self.resident)
    }
}

/// The inputs of a plan besides the weights.
pub(super) struct Room<'a> {
    geometry: &'a Geometry,
    numbers: NumberType,
    /// Bytes.
    free: u64,
    /// The tokens of the smallest batch.
    least: usize,
    batch_tokens: Option<usize>,
}

impl<'a> Room<'a> {
    /// The room on a device with `free` bytes.
    ///
    /// # Errors
    /// [`ModelError::Option`] for a dtype that no GPU computes.
    pub(super) fn new(free: u64, config: &ModelConfig, geometry: &'a Geometry, options: &LoadOptions) -> Result<Self> {
        let numbers = super::numbers(options.dtype.unwrap_or_default())?;
        let least = config.max_tokens().next_multiple_of(ROW_STEP);
        Ok(Self { geometry, numbers, free, least, batch_tokens: options.batch_tokens })
    }

    /// Resident layers if the whole model and a batch fit, and streamed ones otherwise. A batch whose size was not given
    /// becomes smaller first. The error is the number of tokens that do not fit together with two layers.
    fn plan(&self, weights: WeightBytes) -> std::result::Result<Plan, usize> {
        let suggested = suggested_tokens(self.geometry.hidden);
        let plan = |tokens, residency| Plan { tokens, sequences: tokens, residency };
        let resident = self.tokens(weights.resident, suggested).map(|tokens| plan(tokens, Residency::Resident));
        let (Err(_), Some(streamed)) = (&resident, weights.streamed) else { return resident };
        self.tokens(streamed, suggested.max(STREAMED_TOKENS)).map(|tokens| plan(tokens, Residency::Streamed))
    }

    /// The tokens of a batch that fits together with the weights; the error is the number that does not.
    fn tokens(&self, weights: u64, suggested: usize) -> std::result::Result<usize, usize> {
        self.most_tokens(suggested, |tokens| self.left_by_batch(tokens).is_some_and(|left| left >= weights))
    }

    /// The tokens of a batch if its memory is free.
    pub(super) fn largest_batch(&self, suggested: usize) -> usize {
        self.batch_tokens.unwrap_or(suggested).next_multiple_of(ROW_STEP).max(self.least)
    }

    /// The most tokens of a batch, from the suggested number down, for which `fits` is true; the error is the number for
    /// which it is not.
    pub(super) fn most_tokens(
        &self,
        suggested: usize,
        fits: impl Fn(usize) -> bool,
    ) -> std::result::Result<usize, usize> {
        let mut tokens = self.largest_batch(suggested);
        while !fits(tokens) {
            if self.batch_tokens.is_some() || tokens == self.least {
                return Err(tokens);
            }
            tokens = (tokens / 2).next_multiple_of(ROW_STEP).max(self.least);
        }
        Ok(tokens)
    }

    /// Bytes that a batch leaves for weights; `None` if it does not fit.
    pub(super) fn left_by_batch(&self, tokens: usize) -> Option<u64> {
        self.free.checked_sub(RESERVED_BYTES)?.checked_sub(batch_bytes(self.geometry, self.numbers, tokens))
    }

    /// The error for a device where weights of these bytes and a batch of `batch_tokens` tokens do not fit.
    fn too_small(&self, gpu: &Gpu, options: &LoadOptions, weights: WeightBytes, batch_tokens: usize) -> ModelError {
        let dtype = options.dtype.unwrap_or_default();
        let mut advice = Vec::new();
        if options.batch_tokens.is_some_and(|tokens| tokens > self.least) {
            advice.push("set model.batch_tokens lower");
        }
        if dtype == Dtype::F32 {
            advice.push("set model.dtype to bf16");
        }
        advice.push("end other programs on the device, or name another or more of them in model.devices");
        ModelError::DeviceMemory {
            device: gpu.info().to_string(),
            free: self.free,
            dtype: dtype.to_string(),
            weights: weights.resident,
            streamed: weights.least(),
            batch_tokens,
            batch: batch_bytes(self.geometry, self.numbers, batch_tokens),
            advice: advice.join("; "),
        }
    }
}

/// Compares the needed memory with the free memory.
///
/// # Errors
/// [`ModelError::DeviceMemory`] if not even two layers and a batch fit; [`ModelError::HostMemory`] if the layers must be
/// streamed and take more of the host's memory than they may.
pub(super) fn plan(
    gpu: &Gpu,
    config: &ModelConfig,
    geometry: &Geometry,
    layout: &ModelLayout,
    options: &LoadOptions,
    head: &HeadWeights,
) -> Result<Plan> {
    let room = Room::new(gpu.free_memory()?, config, geometry, options)?;
    let weights = WeightBytes::new(layout, head.device_bytes(room.numbers.bytes()));
    let plan = room.plan(weights).map_err(|batch_tokens| room.too_small(gpu, options, weights, batch_tokens))?;
    if plan.residency == Residency::Streamed {
        let device = gpu.info().to_string();
        check_host(&device, layout, options.dtype.unwrap_or_default(), options.memory)?;
        log_streamed(&device, weights, plan);
    }
    Ok(plan)
}

fn log_streamed(device: &str, weights: WeightBytes, plan: Plan) {
    tracing::warn!(
        device,
        weights = size(weights.resident),
        on_device = size(weights.least()),
        batch_tokens = plan.tokens,
        "the model does not fit into the free memory of the device: its layers are copied there again for every batch"
    );
}

/// Fails if the layers take more of the host's memory than they may.
fn check_host(device: &str, layout: &ModelLayout, dtype: Dtype, memory: Option<u64>) -> Result<()> {
    let layers = (layout.layers.len() * layout.layer_bytes) as u64;
    match host_limit(memory, available_memory) {
        Some(limit) if limit < layers => {
            Err(ModelError::HostMemory { device: device.to_owned(), limit, dtype: dtype.to_string(), layers })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(config: &ModelConfig, numbers: NumberType) -> (Geometry, ModelLayout) {
        let geometry = Geometry::new(config, numbers).unwrap();
        let layout = ModelLayout::new(config, &geometry, numbers, 0..config.num_hidden_layers);
        (geometry, layout)
    }

    #[test]
    fn streamed_weights_are_two_layers_and_everything_outside() {
        let bytes = |layers, head_bytes| {
            let config = ModelConfig { num_hidden_layers: layers, ..ModelConfig::tiny() };
            let (_, layout) = layout(&config, NumberType::F32);
            (WeightBytes::new(&layout, head_bytes), layout.layer_bytes as u64)
        };
        let (six, layer) = bytes(6, 0);
        let two = six.resident - 4 * layer;
        assert_eq!(six.streamed, Some(two));
        assert_eq!(bytes(2, 0).0, WeightBytes { resident: two, streamed: None });
        assert_eq!(bytes(1, 0).0.streamed, None);
        let with_head = WeightBytes { resident: six.resident + 1000, streamed: Some(two + 1000) };
        assert_eq!(bytes(6, 1000).0, with_head);
    }

    #[test]
    fn layers_are_streamed_when_no_batch_fits_together_with_all_of_them() {
        // The geometry of facebook/xlm-roberta-xl, which takes 6.5 GiB in bf16, and 1.5 GiB with two layers.
        let config = ModelConfig::xl();
        let numbers = NumberType::Bf16;
        let (geometry, layout) = layout(&config, numbers);
        let plan = |free_mib: u64, batch_tokens| {
            let room = Room { geometry: &geometry, numbers, free: free_mib << 20, least: 512, batch_tokens };
            let plan = room.plan(WeightBytes::new(&layout, 0))?;
            Ok((plan.tokens, plan.residency))
        };
        let cases = [
            (16 << 10, None, Ok((16_384, Residency::Resident))),
            (7680, None, Ok((8192, Residency::Resident))),
            (7200, None, Ok((512, Residency::Resident))),
            // With more tokens than a resident model has: they hide the copies.
            (7100, None, Ok((32_768, Residency::Streamed))),
            (3072, None, Ok((16_384, Residency::Streamed))),
            (2048, None, Err(512)),
            (16 << 10, Some(100_000), Ok((100_096, Residency::Resident))),
            (8 << 10, Some(100_000), Ok((100_096, Residency::Streamed))),
            (4 << 10, Some(100_000), Err(100_096)),
        ];
        for (free_mib, batch_tokens, expected) in cases {
            assert_eq!(plan(free_mib, batch_tokens), expected, "{free_mib} MiB, {batch_tokens:?} tokens");
        }
    }
}
