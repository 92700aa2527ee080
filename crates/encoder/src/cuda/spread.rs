//! The layers of each of several GPUs: consecutive ones, about as many on each, where a batch fits next to them.
//!
//! The slowest GPU sets the pace, so the numbers of layers differ only where the memory requires it: the first GPU has
//! the embeddings, and the last one the head.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use polylance_cuda::{Gpu, GpuInfo};

use super::{
    buffers::StateBytes,
    layout::{Geometry, ModelLayout},
    plan::{self, Plan, Residency, Room, WeightBytes, suggested_tokens},
};
use crate::{
    available_memory::available_memory,
    config::ModelConfig,
    device::joined_names,
    error::{ModelError, Result},
    loading::LoadOptions,
    residency::{HeadWeights, host_limit},
};

/// A GPU does not hold a model if a batch of this many tokens does not fit next to it: products with fewer rows do not
/// keep a GPU busy.
const MIN_BUSY_TOKENS: usize = 4096;

/// GPUs, and the layers of each.
type LayersByGpu<'a> = Vec<(&'a Arc<Gpu>, Range<usize>)>;

/// The memory of a GPU that has a part of the layers.
struct Share<'a> {
    room: Room<'a>,
    /// Bytes of everything outside of its layers.
    outside: u64,
}

/// The GPUs of a model, in the order of its layers.
struct Shares<'a> {
    gpus: Vec<Share<'a>>,
    layers: usize,
    layer_bytes: u64,
    hidden: usize,
    /// Bytes of the host's memory that the states between GPUs may take; `None` if that is unknown.
    host: Option<u64>,
}

impl<'a> Shares<'a> {
    fn new(
        free: &[u64],
        host: Option<u64>,
        config: &ModelConfig,
        geometry: &'a Geometry,
        options: &LoadOptions,
        head: &HeadWeights,
    ) -> Result<Self> {
        let (layers, last) = (config.num_hidden_layers, free.len().saturating_sub(1));
        let numbers = super::numbers(options.dtype.unwrap_or_default())?;
        let layout = |layers| ModelLayout::new(config, geometry, numbers, layers);
        let share = |(at, &free): (usize, &u64)| {
            // Any layers that have the same tensors around them.
            let layout = if at == last { layout(layers - 1..layers) } else { layout(at..at + 1) };
            let mut outside = layout.outside.bytes as u64;
            if at == last {
                let words = if head.has_tied_words { config.vocab_size * config.hidden_size } else { 0 };
                outside += head.device_bytes(numbers.bytes()) + (words * numbers.bytes()) as u64;
            }
            Ok(Share { room: Room::new(free, config, geometry, options)?, outside })
        };
        let gpus = free.iter().enumerate().map(share).collect::<Result<_>>()?;
        Ok(Self { gpus, layers, layer_bytes: layout(0..1).layer_bytes as u64, hidden: geometry.hidden, host })
    }

    /// The numbers of layers next to a batch of `tokens` tokens; `None` if they do not fit.
    fn counts(&self, tokens: usize) -> Option<Vec<usize>> {
        let states = StateBytes::total(self.gpus.len(), tokens, self.hidden) as u64;
        if self.host.is_some_and(|host| host < states) {
            return None;
        }
        let capacity = |share: &Share<'_>| {
            let left = share.room.left_by_batch(tokens)?.checked_sub(share.outside)?;
            usize::try_from(left / self.layer_bytes).ok().filter(|&layers| layers > 0)
        };
        assign_layers(self.layers, &self.gpus.iter().map(capacity).collect::<Option<Vec<_>>>()?)
    }

    /// The tokens of a batch that fits on all GPUs, and the numbers of layers next to it.
    fn plan(&self, suggested: usize) -> Option<(usize, Vec<usize>)> {
        let room = &self.gpus.first()?.room;
        let tokens = room.most_tokens(suggested, |tokens| self.counts(tokens).is_some()).ok()?;
        Some((tokens, self.counts(tokens)?))
    }
}

/// The number of layers of each GPU, at most its capacity: as even as possible, and higher for the later ones.
fn assign_layers(layers: usize, capacities: &[usize]) -> Option<Vec<usize>> {
    let mut counts = vec![0; capacities.len()];
    for _ in 0..layers {
        let has_room = |at: &usize| counts[*at] < capacities[*at];
        let fewest = (0..counts.len()).rev().filter(has_room).min_by_key(|&at| counts[at])?;
        counts[fewest] += 1;
    }
    Some(counts)
}

/// Neighbouring ranges of these lengths.
fn ranges(counts: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let range = |&count: &usize| {
        let start = end;
        end += count;
        start..end
    };
    counts.iter().map(range).collect()
}

fn free_memory(gpus: &[Arc<Gpu>]) -> Result<Vec<u64>> {
    gpus.iter().map(|gpu| Ok(gpu.free_memory()?)).collect()
}

/// Memory of the host for states between GPUs. `model.memory` limits weights alone.
fn host_memory() -> Option<u64> {
    host_limit(None, available_memory)
}

/// Whether all GPUs have one compute capability. Kernels for different ones round differently, so the bits would depend
/// on the number of layers of each.
fn have_one_compute_capability<'a>(gpus: impl IntoIterator<Item = &'a GpuInfo>) -> bool {
    gpus.into_iter().map(|info| info.compute).collect::<BTreeSet<_>>().len() < 2
}

/// # Errors
/// [`ModelError::Option`] for GPUs that a model cannot be spread over.
fn check(gpus: &[Arc<Gpu>], layers: usize) -> Result<()> {
    let refused = |message| Err(ModelError::Option(message));
    if gpus.len() > layers {
        return refused(format!("a model of {layers} layers cannot be spread over {} GPUs", gpus.len()));
    }
    let mut ordinals = BTreeSet::new();
    if let Some(twice) = gpus.iter().find(|gpu| !ordinals.insert(gpu.info().ordinal)) {
        return refused(format!("{} is named twice for one model", twice.info()));
    }
    if !have_one_compute_capability(gpus.iter().map(|gpu| gpu.info())) {
        return refused(format!("{} have different compute capabilities", joined_names(gpus)));
    }
    Ok(())
}

/// The GPUs that the layers are on, the layers of each, and the plan that all of them have. A single GPU has all layers, of
/// several the one with the most free memory if they do not hold the model together.
///
/// # Errors
/// [`ModelError::Option`] for GPUs that a model cannot be spread over; [`ModelError::DeviceMemory`] and
/// [`ModelError::HostMemory`] if model and batch do not fit; when a device fails.
pub(super) fn place<'a>(
    gpus: &'a [Arc<Gpu>],
    config: &ModelConfig,
    geometry: &Geometry,
    options: &LoadOptions,
    head: &HeadWeights,
) -> Result<(LayersByGpu<'a>, Plan)> {
    check(gpus, config.num_hidden_layers)?;
    let free = free_memory(gpus)?;
    if gpus.len() > 1 {
        let shares = Shares::new(&free, host_memory(), config, geometry, options, head)?;
        if let Some((tokens, counts)) = shares.plan(suggested_tokens(geometry.hidden)) {
            let devices = joined_names(gpus);
            tracing::info!(devices, layers = ?counts, batch_tokens = tokens, "the model is spread over GPUs");
            let plan = Plan { tokens, sequences: tokens, residency: Residency::Resident };
            return Ok((gpus.iter().zip(ranges(&counts)).collect(), plan));
        }
    }
    let Some((gpu, _)) = gpus.iter().zip(free).max_by_key(|(_, free)| *free) else {
        return Err(ModelError::Option("no GPU was given".to_owned()));
    };
    if gpus.len() > 1 {
        let (devices, device) = (joined_names(gpus), gpu.info().to_string());
        tracing::warn!(devices, device, "the free memory of the devices does not hold the model: one has all layers");
    }
    let layers = 0..config.num_hidden_layers;
    let layout = ModelLayout::new(config, geometry, super::numbers(options.dtype.unwrap_or_default())?, layers.clone());
    let plan = plan::plan(gpu, config, geometry, &layout, options, head)?;
    Ok((vec![(gpu, layers)], plan))
}

/// Whether a model should be spread over GPUs: none of them holds it together with a batch of
/// `options.batch_tokens` or [`MIN_BUSY_TOKENS`] tokens, all of them together do, and they have one compute capability.
///
/// # Errors
/// [`ModelError::Unsupported`] for a geometry that no kernel takes; when a device fails.
pub(crate) fn is_spread(
    gpus: &[Arc<Gpu>],
    config: &ModelConfig,
    options: &LoadOptions,
    head: &HeadWeights,
) -> Result<bool> {
    if gpus.len() < 2 || check(gpus, config.num_hidden_layers).is_err() {
        return Ok(false);
    }
    let numbers = super::numbers(options.dtype.unwrap_or_default())?;
    let geometry = Geometry::new(config, numbers)?;
    let shares = Shares::new(&free_memory(gpus)?, host_memory(), config, &geometry, options, head)?;
    let layout = ModelLayout::new(config, &geometry, numbers, 0..config.num_hidden_layers);
    let whole = WeightBytes::new(&layout, head.device_bytes(numbers.bytes())).resident;
    let Some(tokens) = shares.gpus.first().map(|share| share.room.largest_batch(MIN_BUSY_TOKENS)) else {
        return Ok(false);
    };
    let holds_it = |share: &Share<'_>| share.room.left_by_batch(tokens).is_some_and(|left| left >= whole);
    Ok(!shares.gpus.iter().any(holds_it) && shares.counts(tokens).is_some())
}

#[cfg(test)]
mod tests {
    use polylance_cuda::NumberType;
    use polylance_schema::Dtype;

    use super::*;

    #[test]
    fn layers_are_assigned_evenly_within_the_capacity_of_each_gpu() {
        for (layers, capacities, expected) in [
            (6, vec![9, 9], vec![3, 3]),
            (5, vec![9, 9], vec![2, 3]),
            (5, vec![9, 9, 9], vec![1, 2, 2]),
            (5, vec![1, 9, 9], vec![1, 2, 2]),
            (36, vec![10, 40, 15], vec![10, 13, 13]),
            (36, vec![10, 40, 5], vec![10, 21, 5]),
        ] {
            assert_eq!(assign_layers(layers, &capacities), Some(expected), "{layers} {capacities:?}");
        }
        assert_eq!(assign_layers(36, &[10, 20, 5]), None);
        assert_eq!(ranges(&[10, 21, 5]), [0..10, 10..31, 31..36]);
    }

    #[test]
    fn batches_become_smaller_until_layers_and_states_fit() {
        // In bf16, a layer takes 150 MiB, all of them 5.3 GiB, and the embeddings 1.2 GiB.
        let config = ModelConfig::xl();
        let geometry = Geometry::new(&config, NumberType::Bf16).unwrap();
        let options = LoadOptions { dtype: Some(Dtype::Bf16), ..LoadOptions::default() };
        let plan = |free_mib: &[u64], host_mib: Option<u64>, head: &HeadWeights| {
            let free: Vec<u64> = free_mib.iter().map(|mib| mib << 20).collect();
            let host = host_mib.map(|mib| mib << 20);
            let shares = Shares::new(&free, host, &config, &geometry, &options, head).unwrap();
            shares.plan(suggested_tokens(geometry.hidden))
        };
        let none = HeadWeights::default();
        assert_eq!(plan(&[8 << 10, 8 << 10], None, &none), Some((16_384, vec![18, 18])));
        // The first one has the embeddings, and so room for fewer layers.
        assert_eq!(plan(&[5 << 10, 5 << 10], None, &none), Some((16_384, vec![17, 19])));
        assert_eq!(plan(&[4 << 10, 4 << 10], None, &none), Some((4096, vec![14, 22])));
        assert_eq!(plan(&[4 << 10, 4 << 10, 4 << 10], None, &none), Some((16_384, vec![10, 13, 13])));
        assert_eq!(plan(&[3 << 10, 3 << 10], None, &none), None);
        // The last one has the word embeddings too.
        assert_eq!(plan(&[5 << 10, 5 << 10], None, &HeadWeights::tied()), Some((8192, vec![18, 18])));
        // The states of 16,384 tokens take 160 MiB: two batches are sent by one GPU and received by the next.
        for (gpus, host_mib, expected) in [(2, 640, 16_384), (2, 639, 8192), (3, 1280, 16_384), (3, 1279, 8192)] {
            let tokens = plan(&vec![8 << 10; gpus], Some(host_mib), &none).map(|(tokens, _)| tokens);
            assert_eq!(tokens, Some(expected), "{gpus} GPUs, {host_mib} MiB");
        }
    }

    #[test]
    fn gpus_of_different_compute_capability_are_never_one_device() {
        let gpu = |ordinal, compute| GpuInfo {
            ordinal,
            name: "GPU".to_owned(),
            compute,
            total_memory: 0,
            multiprocessors: 1,
            pci_bus_id: String::new(),
        };
        assert!(have_one_compute_capability(&[gpu(0, (9, 0)), gpu(1, (9, 0))]));
        assert!(!have_one_compute_capability(&[gpu(0, (9, 0)), gpu(1, (9, 0)), gpu(2, (8, 0))]));
    }
}
