//! A model on the selected devices: loaded once for all cores, once for each GPU, or once for all GPUs, with a worker for
//! each device or each lane of a GPU.

use std::{ops::Deref, slice, sync::Arc};

use polylance_backend::Result as BackendResult;
use polylance_encoder::{Device as Hardware, Gpu, LoadReport, ModelError};

use super::{
    device_threads::DeviceThreads,
    gpu_loader::{GpuModelLoader, OpenGpus, device_name, load_onto_gpus},
    gpu_model::{GPU_LANES, Lane},
    streamed_window::{joined, window_tokens},
};
use crate::{
    device::{DeviceWorker, Devices, TokenCount},
    error::PoolError,
    options::PoolOptions,
    selection::{DeviceSpec, Machine, SelectedDevices, VisibleGpu},
};

/// Tokens in a batch of cores: enough to fill their caches.
const BATCH_TOKENS_CPU: usize = 2048;
/// Tokens in a batch of a GPU without a limit of its own.
const BATCH_TOKENS_GPU: usize = 16_384;

/// A model of a pool: how it is loaded onto a device, any number of times, and what it computes there.
pub(crate) trait DeviceModel: Send + Sync + 'static {
    /// The model in a device's memory.
    type Loaded: Send + Sync + 'static;
    /// One input of a batch.
    type Input: TokenCount;
    /// The result for one input.
    type Output: Send + 'static;

    /// Loads the model onto a device.
    fn load(&self, device: &Hardware) -> Result<Self::Loaded, ModelError>;

    /// Whether the model should be spread over these GPUs, because none of them holds it.
    fn is_spread(&self, _gpus: &[Arc<Gpu>]) -> Result<bool, ModelError> {
        Ok(false)
    }

    /// The report of loading it.
    fn report(loaded: &Self::Loaded) -> &LoadReport;

    /// Maximum number of tokens in a pass; a larger batch is computed in several. `None` without a limit.
    fn batch_tokens(loaded: &Self::Loaded) -> Option<usize>;

    /// Computes a batch on the device's threads: one output per input, in the same order.
    fn compute(
        &self,
        loaded: &Self::Loaded,
        threads: &DeviceThreads,
        inputs: &[Self::Input],
    ) -> BackendResult<Vec<Self::Output>>;
}

/// A model on all its devices.
pub(crate) struct PerDevice<M: DeviceModel> {
    /// The devices, ready for batches.
    pub(crate) devices: Devices<M::Input, M::Output>,
    /// The model on one of them. Drop it once the pool is open: a GPU cannot be reset while it is held.
    pub(crate) loaded: Arc<OnDevice<M::Loaded>>,
}

/// A model in a device's memory. It holds its GPUs open.
pub(crate) struct OnDevice<T> {
    pub(super) loaded: T,
    pub(super) gpus: Vec<Arc<Gpu>>,
}

impl<T> Deref for OnDevice<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.loaded
    }
}

impl<M: DeviceModel> PerDevice<M> {
    /// Loads the model onto the devices and starts a worker for each. The options' `batch_tokens` override the size of
    /// a batch; a GPU's limit stays.
    pub(crate) fn load(
        model: M,
        devices: &SelectedDevices,
        options: &PoolOptions,
        machine: &Machine,
    ) -> Result<Self, PoolError> {
        let model = Arc::new(model);
        let Placement { workers, loaded, batch_tokens } = match devices {
            SelectedDevices::AllCores => load_on_cores(&model, options, |streamed| all_cores(streamed, machine)),
            SelectedDevices::Cpu(specs) => {
                load_on_cores(&model, options, |streamed| if streamed { vec![joined(specs)] } else { specs.clone() })
            }
            SelectedDevices::Cuda(gpus) => load_on_gpus(&model, gpus, options, machine),
        }?;
        Ok(Self { devices: Devices::start(workers, batch_tokens, options.stall())?, loaded })
    }
}

/// The workers of a model before they are started.
struct Placement<M: DeviceModel> {
    /// The lanes of a GPU are neighbours and have its name.
    workers: Vec<ModelWorker<M>>,
    loaded: Arc<OnDevice<M::Loaded>>,
    /// Tokens in a batch: the smallest default among the devices.
    batch_tokens: usize,
}

/// A worker that computes with a loaded model.
struct ModelWorker<M: DeviceModel> {
    model: Arc<M>,
    threads: DeviceThreads,
    loaded: LoadedModel<M>,
}

/// A worker's access to the loaded model.
enum LoadedModel<M: DeviceModel> {
    OnCores(Arc<OnDevice<M::Loaded>>),
    OnGpu(Lane<GpuModelLoader<M>>),
}

impl<M: DeviceModel> DeviceWorker for ModelWorker<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn name(&self) -> &str {
        self.threads.name()
    }

    fn run(&self, inputs: &[M::Input]) -> BackendResult<Vec<M::Output>> {
        let compute = |loaded: &OnDevice<M::Loaded>| self.model.compute(loaded, &self.threads, inputs);
        match &self.loaded {
            LoadedModel::OnCores(loaded) => compute(loaded),
            LoadedModel::OnGpu(lane) => lane.run(compute),
        }
    }

    /// Weights in memory are never written to, so those that are loaded are as good as new ones. A GPU may have lost
    /// them, and its lane loads them again.
    fn respawn(&self) -> BackendResult<Self> {
        let loaded = match &self.loaded {
            LoadedModel::OnCores(loaded) => LoadedModel::OnCores(Arc::clone(loaded)),
            LoadedModel::OnGpu(lane) => LoadedModel::OnGpu(lane.respawn()),
        };
        Ok(Self { model: Arc::clone(&self.model), threads: self.threads.respawn()?, loaded })
    }
}

/// One device per core if all layers are in memory, and all cores as one device if they are streamed.
fn all_cores(streamed: bool, machine: &Machine) -> Vec<DeviceSpec> {
    let cores = machine.cores();
    if streamed || cores.len() < 2 {
        return vec![DeviceSpec::Cpu];
    }
    cores.iter().map(|&core| DeviceSpec::Cores(vec![core])).collect()
}

fn load_on_cores<M: DeviceModel>(
    model: &Arc<M>,
    options: &PoolOptions,
    specs: impl FnOnce(bool) -> Vec<DeviceSpec>,
) -> Result<Placement<M>, PoolError> {
    let loaded = Arc::new(OnDevice { loaded: model.load(&Hardware::Cpu)?, gpus: Vec::new() });
    let streaming = M::report(&loaded).streaming;
    let worker = |spec: &DeviceSpec| {
        let (threads, loaded) = (DeviceThreads::of_cores(spec)?, LoadedModel::OnCores(Arc::clone(&loaded)));
        Ok(ModelWorker { model: Arc::clone(model), threads, loaded })
    };
    let specs = specs(streaming.is_some());
    let workers = specs.iter().map(worker).collect::<Result<_, PoolError>>()?;
    let cores = specs.iter().map(DeviceSpec::threads).sum();
    let default = streaming.map_or(BATCH_TOKENS_CPU, |streaming| window_tokens(streaming, cores));
    Ok(Placement { workers, loaded, batch_tokens: options.batch_tokens.unwrap_or(default) })
}

fn load_on_gpus<M: DeviceModel>(
    model: &Arc<M>,
    gpus: &[VisibleGpu],
    options: &PoolOptions,
    machine: &Machine,
) -> Result<Placement<M>, PoolError> {
    let (mut workers, mut first, mut batch_tokens) = (Vec::new(), None, options.batch_tokens.unwrap_or(usize::MAX));
    let mut sorted = gpus.to_vec();
    sorted.sort_by_key(|gpu| gpu.ordinal);
    let opened = OpenGpus::open(&**model, &sorted)?;
    let groups: Vec<&[VisibleGpu]> =
        if opened.is_spread() { vec![&sorted[..]] } else { gpus.iter().map(slice::from_ref).collect() };
    for (gpus, (gpu_model, loaded)) in groups.iter().zip(load_onto_gpus(model, &groups, &opened)?) {
        batch_tokens = batch_tokens.min(M::batch_tokens(&loaded).unwrap_or(BATCH_TOKENS_GPU));
        first.get_or_insert(loaded);
        for lane in 0..GPU_LANES + gpus.len() - 1 {
            let near = gpus.first().and_then(|gpu| near_core(gpu, lane, machine));
            let threads = DeviceThreads::of_gpu(&device_name(gpus), near)?;
            let loaded = LoadedModel::OnGpu(Lane::new(Arc::clone(&gpu_model)));
            workers.push(ModelWorker { model: Arc::clone(model), threads, loaded });
        }
    }
    let no_device = || PoolError::Model(ModelError::Option("no device was given".to_owned()));
    Ok(Placement { workers, loaded: first.ok_or_else(no_device)?, batch_tokens })
}

/// A core near the GPU that this process may run on: a different one for each lane and each GPU of a NUMA node.
fn near_core(gpu: &VisibleGpu, lane: usize, machine: &Machine) -> Option<usize> {
    let near = gpu.near_cores.as_deref().unwrap_or_default();
    let allowed: Vec<usize> = near.iter().copied().filter(|core| machine.cores().contains(core)).collect();
    let at = (gpu.ordinal as usize * GPU_LANES + lane).checked_rem(allowed.len())?;
    Some(allowed[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_is_a_device_unless_layers_are_streamed() {
        let machine = |cores: &[usize]| Machine::new(cores.to_vec(), Ok(Vec::new()));
        let each = [0, 3].map(|core| DeviceSpec::Cores(vec![core]));
        assert_eq!(all_cores(false, &machine(&[0, 3])), each);
        assert_eq!(all_cores(true, &machine(&[0, 3])), [DeviceSpec::Cpu]);
        assert_eq!(all_cores(false, &machine(&[2])), [DeviceSpec::Cpu]);
    }

    #[test]
    fn each_lane_gets_an_allowed_core_near_its_gpu() {
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
