//! A model on the devices that were selected: once for all cores, once for each GPU, with a worker a lane.

use std::{ops::Deref, sync::Arc, thread};

use polylance_backend::Result;
use polylance_encoder::{Device as Hardware, Gpu, LoadReport, ModelError};

use crate::{
    PoolError,
    device_threads::DeviceThreads,
    error::panic_message,
    gpu_model::{GPU_LANES, GpuLoader, GpuModel, Lane, LoadFailure, context},
    machine::{Machine, VisibleGpu},
    resolve::SelectedDevices,
    spec::DeviceSpec,
};

/// Ids in a batch of cores: enough to fill their caches, and more where weights have to be widened for every batch.
const BATCH_TOKENS: usize = 2048;
const BATCH_TOKENS_PER_LAYER: usize = 8192;
/// Ids in a batch of a GPU that has no limit of its own.
const BATCH_TOKENS_CUDA: usize = 16_384;

/// How a model is loaded, on any device and again.
pub(crate) trait LoadModel: Send + Sync + 'static {
    /// What is loaded.
    type Model: Send + Sync + 'static;

    fn on(&self, device: &Hardware) -> std::result::Result<Self::Model, ModelError>;

    fn report(model: &Self::Model) -> &LoadReport;

    /// Ids that a pass takes at most, after which a batch is computed in several; `None` without a limit.
    fn batch_tokens(model: &Self::Model) -> Option<usize>;
}

/// A model on a device.
pub(crate) struct Resident<M> {
    model: M,
    gpu: Option<Arc<Gpu>>,
}

impl<M> Deref for Resident<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.model
    }
}

/// A model as a worker reaches it.
pub(crate) enum Placed<L: LoadModel> {
    Cores(Arc<Resident<L::Model>>),
    Gpu(Lane<OnGpu<L>>),
}

/// A model on all its devices.
pub(crate) struct Placement<L: LoadModel> {
    /// The threads of each worker and its model; the lanes of a GPU are neighbours and have its name.
    pub(crate) workers: Vec<(DeviceThreads, Placed<L>)>,
    /// The model on one of the devices.
    pub(crate) model: Arc<Resident<L::Model>>,
    /// Ids in a batch: what the device that takes least takes.
    pub(crate) batch_tokens: usize,
}

impl<L: LoadModel> Placed<L> {
    /// Computes with the model.
    pub(crate) fn pass<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        match self {
            Self::Cores(model) => compute(model),
            Self::Gpu(lane) => lane.pass(|model| compute(model)),
        }
    }

    /// The model for a worker in the place of one that failed. In memory weights are never written to, so those that
    /// are there are as good as new ones; a GPU may have lost them, and its lane loads them again.
    pub(crate) fn another(&self) -> Self {
        match self {
            Self::Cores(model) => Self::Cores(Arc::clone(model)),
            Self::Gpu(lane) => Self::Gpu(lane.another()),
        }
    }
}

/// Loads the model onto the devices. `batch_tokens` overrides how many ids a batch has; a GPU's limit stays.
pub(crate) fn place<L: LoadModel>(
    load: L,
    devices: &SelectedDevices,
    batch_tokens: Option<usize>,
    machine: &Machine,
) -> std::result::Result<Placement<L>, PoolError> {
    match devices {
        SelectedDevices::AllCores => place_on_cores(&load, batch_tokens, |per_layer| all_cores(per_layer, machine)),
        SelectedDevices::Cpu(specs) => place_on_cores(&load, batch_tokens, |_| specs.clone()),
        SelectedDevices::Cuda(gpus) => place_on_gpus(load, gpus, batch_tokens, machine),
    }
}

/// One device a core when the weights are small enough to stay in memory as the arithmetic needs them, and otherwise all
/// cores as one device.
fn all_cores(per_layer: bool, machine: &Machine) -> Vec<DeviceSpec> {
    let cores = machine.cores();
    if per_layer || cores.len() < 2 {
        return vec![DeviceSpec::Cpu];
    }
    cores.iter().map(|&core| DeviceSpec::Cores(vec![core])).collect()
}

fn place_on_cores<L: LoadModel>(
    load: &L,
    batch_tokens: Option<usize>,
    specs: impl FnOnce(bool) -> Vec<DeviceSpec>,
) -> std::result::Result<Placement<L>, PoolError> {
    let model = Arc::new(Resident { model: load.on(&Hardware::Cpu)?, gpu: None });
    let per_layer = L::report(&model).per_layer;
    let worker = |spec: &DeviceSpec| Ok((DeviceThreads::new(spec, None)?, Placed::Cores(Arc::clone(&model))));
    let workers = specs(per_layer).iter().map(worker).collect::<std::result::Result<_, PoolError>>()?;
    let by_weights = if per_layer { BATCH_TOKENS_PER_LAYER } else { BATCH_TOKENS };
    Ok(Placement { workers, model, batch_tokens: batch_tokens.unwrap_or(by_weights) })
}

fn place_on_gpus<L: LoadModel>(
    load: L,
    gpus: &[VisibleGpu],
    batch_tokens: Option<usize>,
    machine: &Machine,
) -> std::result::Result<Placement<L>, PoolError> {
    let load = Arc::new(load);
    let no_model = || PoolError::Model(ModelError::Option("no device was given".to_owned()));
    let (mut workers, mut first, mut budget) = (Vec::new(), None, batch_tokens.unwrap_or(usize::MAX));
    for (gpu, (shared, model)) in gpus.iter().zip(load_on_gpus(&load, gpus)?) {
        budget = budget.min(L::batch_tokens(&model).unwrap_or(BATCH_TOKENS_CUDA));
        first.get_or_insert(model);
        for lane in 0..GPU_LANES {
            let threads = DeviceThreads::new(&DeviceSpec::Cuda(gpu.ordinal), near_core(gpu, lane, machine))?;
            workers.push((threads, Placed::Gpu(Lane::new(Arc::clone(&shared)))));
        }
    }
    Ok(Placement { workers, model: first.ok_or_else(no_model)?, batch_tokens: budget })
}

/// The model on each GPU, all loaded at once: they read the same files, which the system then reads once.
#[expect(clippy::type_complexity, reason = "a place for a model on each GPU, and the model")]
fn load_on_gpus<L: LoadModel>(
    load: &Arc<L>,
    gpus: &[VisibleGpu],
) -> std::result::Result<Vec<(Arc<GpuModel<OnGpu<L>>>, Arc<Resident<L::Model>>)>, PoolError> {
    thread::scope(|scope| {
        let start = |gpu: &VisibleGpu| {
            let device = DeviceSpec::Cuda(gpu.ordinal).to_string();
            let loader = OnGpu { load: Arc::clone(load), ordinal: gpu.ordinal, device: device.clone() };
            let ordinal = gpu.ordinal;
            let loading = thread::Builder::new()
                .name(format!("load {device}"))
                .spawn_scoped(scope, move || GpuModel::load(loader, context(ordinal)))
                .map_err(PoolError::Thread)?;
            Ok((device, loading))
        };
        let loading = gpus.iter().map(start).collect::<std::result::Result<Vec<_>, PoolError>>()?;
        let loaded = loading.into_iter().map(|(device, loading)| {
            loading
                .join()
                .unwrap_or_else(|panic| Err(PoolError::Gpu { device, message: panic_message(panic.as_ref()) }))
        });
        loaded.collect()
    })
}

/// A core near the GPU that this process may run on: another one for each lane, and for each GPU of a node.
fn near_core(gpu: &VisibleGpu, lane: usize, machine: &Machine) -> Option<usize> {
    let near = gpu.near_cores.as_deref().unwrap_or_default();
    let allowed: Vec<usize> = near.iter().copied().filter(|core| machine.cores().contains(core)).collect();
    let at = (gpu.ordinal as usize * GPU_LANES + lane).checked_rem(allowed.len())?;
    Some(allowed[at])
}

/// Loads a model onto a GPU of this machine.
pub(crate) struct OnGpu<L> {
    load: Arc<L>,
    ordinal: u32,
    device: String,
}

impl<L: LoadModel> GpuLoader for OnGpu<L> {
    type Model = Resident<L::Model>;

    fn device(&self) -> &str {
        &self.device
    }

    fn load(&self) -> std::result::Result<Self::Model, LoadFailure> {
        let gpu = Gpu::open(self.ordinal).map_err(|error| LoadFailure {
            is_lost: error.is_lost(),
            error: Box::new(PoolError::Gpu { device: self.device.clone(), message: error.to_string() }),
        })?;
        match self.load.on(&Hardware::Cuda(Arc::clone(&gpu))) {
            Ok(model) => Ok(Resident { model, gpu: Some(gpu) }),
            Err(error) => {
                let error = match error {
                    ModelError::OutOfMemory(_) | ModelError::Device(_) => {
                        PoolError::Load { device: self.device.clone(), source: Box::new(error) }
                    }
                    error => PoolError::Model(error),
                };
                Err(LoadFailure { is_lost: gpu.is_lost(), error: Box::new(error) })
            }
        }
    }

    fn is_lost(&self, model: &Self::Model) -> bool {
        model.gpu.as_ref().is_some_and(|gpu| gpu.is_lost())
    }

    fn reset(&self) -> std::result::Result<(), String> {
        Gpu::reset(self.ordinal).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_are_a_device_each_unless_weights_are_widened_a_layer_at_a_time() {
        let machine = |cores: &[usize]| Machine::new(cores.to_vec(), Ok(Vec::new()));
        let each = [0, 3].map(|core| DeviceSpec::Cores(vec![core]));
        assert_eq!(all_cores(false, &machine(&[0, 3])), each);
        assert_eq!(all_cores(true, &machine(&[0, 3])), [DeviceSpec::Cpu]);
        assert_eq!(all_cores(false, &machine(&[2])), [DeviceSpec::Cpu]);
    }

    #[test]
    fn each_lane_of_a_gpu_has_a_core_that_is_near_and_allowed() {
        let gpu = |ordinal, near_cores| VisibleGpu { ordinal, name: "GPU".to_owned(), compute: (9, 0), near_cores };
        let machine = Machine::new((0..8).collect(), Ok(Vec::new()));
        let near = || Some((4..16).collect());
        let cores = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
            .map(|(ordinal, lane)| near_core(&gpu(ordinal, near()), lane, &machine).unwrap());
        assert_eq!(cores, [4, 5, 6, 7, 4]);
        assert_eq!(near_core(&gpu(0, None), 0, &machine), None);
        assert_eq!(near_core(&gpu(0, Some(vec![20])), 0, &machine), None);
    }
}
