//! Opening GPUs, and loading a model onto each of them or onto all together.

use std::{
    sync::{Arc, Weak},
    thread,
};

use polylance_encoder::{Device as Hardware, Gpu, ModelError};

use super::{
    gpu_model::{GpuLoader, GpuModel, LoadFailure, context},
    per_device::{DeviceModel, OnDevice},
};
use crate::{
    error::{PoolError, panic_message},
    selection::{DeviceSpec, VisibleGpu},
};

/// A model for lanes, and as it was loaded.
type Loaded<L> = (Arc<GpuModel<L>>, Arc<<L as GpuLoader>::Model>);

/// The device name of GPUs, such as `cuda:0+cuda:1`.
pub(super) fn device_name(gpus: &[VisibleGpu]) -> String {
    let names: Vec<String> = gpus.iter().map(|gpu| DeviceSpec::Cuda(gpu.ordinal).to_string()).collect();
    names.join("+")
}

/// GPUs that are open until a model was loaded onto them. A reset for another model closes them, as it drops models.
pub(super) struct OpenGpus {
    gpus: Vec<Arc<GpuModel<GpuOpener>>>,
    is_spread: bool,
}

impl OpenGpus {
    /// Opens GPUs, which are in the order of their ordinals, and decides whether the model is spread over them. A GPU that
    /// was lost before is reset first.
    pub(super) fn open<M: DeviceModel>(model: &M, gpus: &[VisibleGpu]) -> Result<Self, PoolError> {
        let opener = |gpu: &VisibleGpu| {
            let opener = GpuOpener { ordinal: gpu.ordinal, device: DeviceSpec::Cuda(gpu.ordinal).to_string() };
            (opener, vec![gpu.ordinal])
        };
        let opened = load_all(gpus.iter().map(opener).collect())?;
        let handles: Vec<Arc<Gpu>> = opened.iter().map(|(_, gpu)| Arc::<Gpu>::clone(gpu)).collect();
        let is_spread = handles.len() > 1
            && model.is_spread(&handles).map_err(|error| {
                for (opener, gpu) in &opened {
                    opener.reset_later(gpu);
                }
                load_error(&device_name(gpus), error)
            })?;
        Ok(Self { gpus: opened.into_iter().map(|(opener, _)| opener).collect(), is_spread })
    }

    /// Whether the model is spread over all of them.
    pub(super) fn is_spread(&self) -> bool {
        self.is_spread
    }

    fn find(&self, ordinal: u32) -> Weak<GpuModel<GpuOpener>> {
        let opener = self.gpus.iter().find(|gpu| gpu.loader().ordinal == ordinal);
        opener.map(Arc::downgrade).unwrap_or_default()
    }
}

/// Loads the model onto all groups of GPUs at the same time: they read the same files, which the system then reads once.
pub(super) fn load_onto_gpus<M: DeviceModel>(
    model: &Arc<M>,
    groups: &[&[VisibleGpu]],
    opened: &OpenGpus,
) -> Result<Vec<Loaded<GpuModelLoader<M>>>, PoolError> {
    let loader = |gpus: &&[VisibleGpu]| {
        let ordinals: Vec<u32> = gpus.iter().map(|gpu| gpu.ordinal).collect();
        let opened = ordinals.iter().map(|&ordinal| (ordinal, opened.find(ordinal))).collect();
        (GpuModelLoader { model: Arc::clone(model), gpus: opened, device: device_name(gpus) }, ordinals)
    };
    load_all(groups.iter().map(loader).collect())
}

/// Loads everything at the same time. With each loader are the ordinals of its GPUs.
fn load_all<L: GpuLoader>(loaders: Vec<(L, Vec<u32>)>) -> Result<Vec<Loaded<L>>, PoolError> {
    thread::scope(|scope| {
        let start = |(loader, ordinals): (L, Vec<u32>)| {
            let device = loader.device().to_owned();
            let contexts = ordinals.into_iter().map(context).collect();
            let loading = thread::Builder::new()
                .name(format!("load {device}"))
                .spawn_scoped(scope, move || GpuModel::load(loader, contexts))
                .map_err(PoolError::Thread)?;
            Ok((device, loading))
        };
        let loading = loaders.into_iter().map(start).collect::<Result<Vec<_>, PoolError>>()?;
        let loaded = loading.into_iter().map(|(device, loading)| {
            loading
                .join()
                .unwrap_or_else(|panic| Err(PoolError::Gpu { device, message: panic_message(panic.as_ref()) }))
        });
        loaded.collect()
    })
}

/// Opens a GPU.
pub(super) struct GpuOpener {
    ordinal: u32,
    device: String,
}

impl GpuLoader for GpuOpener {
    type Model = Arc<Gpu>;

    fn device(&self) -> &str {
        &self.device
    }

    fn load(&self) -> Result<Arc<Gpu>, LoadFailure> {
        open(0, self.ordinal)
    }

    fn lost(&self, gpu: &Arc<Gpu>) -> Vec<usize> {
        lost(std::slice::from_ref(gpu))
    }

    fn reset(&self, _: usize) -> Result<(), String> {
        reset(self.ordinal)
    }
}

/// Loads a model onto a GPU of this machine, or onto several.
pub(super) struct GpuModelLoader<M> {
    model: Arc<M>,
    /// Ascending ordinals. The GPUs are open only when the model is loaded for the first time.
    gpus: Vec<(u32, Weak<GpuModel<GpuOpener>>)>,
    device: String,
}

impl<M: DeviceModel> GpuLoader for GpuModelLoader<M> {
    type Model = OnDevice<M::Loaded>;

    fn device(&self) -> &str {
        &self.device
    }

    fn load(&self) -> Result<Self::Model, LoadFailure> {
        let open = |(at, (ordinal, opened)): (usize, &(u32, Weak<GpuModel<GpuOpener>>))| match opened
            .upgrade()
            .and_then(|opened| opened.usable_model())
        {
            Some(gpu) => Ok(Arc::<Gpu>::clone(&gpu)),
            None => open(at, *ordinal),
        };
        let gpus = self.gpus.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        let hardware = match &gpus[..] {
            [gpu] => Hardware::Cuda(Arc::clone(gpu)),
            gpus => Hardware::CudaStages(gpus.into()),
        };
        match self.model.load(&hardware) {
            Ok(loaded) => Ok(OnDevice { loaded, gpus }),
            Err(error) => Err(LoadFailure { lost: lost(&gpus), error: Box::new(load_error(&self.device, error)) }),
        }
    }

    fn lost(&self, model: &Self::Model) -> Vec<usize> {
        lost(&model.gpus)
    }

    fn reset(&self, gpu: usize) -> Result<(), String> {
        self.gpus.get(gpu).map_or(Ok(()), |(ordinal, _)| reset(*ordinal))
    }
}

/// Opens a GPU, which is at the place `at` among those of its loader.
fn open(at: usize, ordinal: u32) -> Result<Arc<Gpu>, LoadFailure> {
    Gpu::open(ordinal).map_err(|error| LoadFailure {
        lost: if error.is_lost() { vec![at] } else { Vec::new() },
        error: Box::new(PoolError::Gpu { device: DeviceSpec::Cuda(ordinal).to_string(), message: error.to_string() }),
    })
}

fn reset(ordinal: u32) -> Result<(), String> {
    Gpu::reset(ordinal).map_err(|error| error.to_string())
}

fn lost(gpus: &[Arc<Gpu>]) -> Vec<usize> {
    gpus.iter().enumerate().filter(|(_, gpu)| gpu.is_lost()).map(|(at, _)| at).collect()
}

fn load_error(device: &str, error: ModelError) -> PoolError {
    match error {
        ModelError::OutOfMemory(_) | ModelError::Device(_) => {
            PoolError::Load { device: device.to_owned(), source: Box::new(error) }
        }
        error => PoolError::Model(error),
    }
}
