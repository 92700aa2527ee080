//! A model in the memory of a GPU, or of several: the lanes share it, and it is reloaded after a GPU was lost.
//!
//! A GPU that fails loses its context: every call returns an error until the context is destroyed, with everything of
//! this process in it, and created again. So there is one lock per GPU. Passes hold it shared. A lane holds it
//! exclusively to destroy the context, to load into a new one, or to find out whether its own batch breaks the GPU.
//!
//! A model that is spread over several GPUs takes all their locks, in the order of the ordinals. It is among the models of
//! each context, so it is dropped on all GPUs before one of them is reset.

mod contexts;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::{RwLock, RwLockWriteGuard};
use polylance_backend::{BackendError, Result};

pub(super) use self::contexts::{Context, context};
use self::contexts::{Slot, read_all, write_all};
use crate::error::{PoolError, with_causes};

/// Batches in flight on a GPU, each with its own worker: the next one is packed and sent while one is computed. A model
/// that is spread over several GPUs has one more for each further GPU.
pub const GPU_LANES: usize = 2;

/// Passes that a lane makes alone on its GPU after a failure. A failure ends the batches of all lanes, so a lane has to
/// be alone to find out which batch caused it. The supervisor needs three: the batch, an input that was computed
/// before, and the batch again.
const EXCLUSIVE_PASSES: usize = 3;

/// Loads a model onto GPUs, and makes a lost GPU usable again. GPUs are counted in the order of their ordinals.
pub(super) trait GpuLoader: Send + Sync + 'static {
    /// The loaded model. It holds the GPUs open.
    type Model: Send + Sync + 'static;

    /// The device name.
    fn device(&self) -> &str;

    /// Opens the GPUs and loads the model.
    fn load(&self) -> std::result::Result<Self::Model, LoadFailure>;

    /// The GPUs that were lost since the model was loaded.
    fn lost(&self, model: &Self::Model) -> Vec<usize>;

    /// Destroys the context of a GPU. Nothing may hold it open.
    fn reset(&self, gpu: usize) -> std::result::Result<(), String>;
}

/// A model that was not loaded.
#[derive(Debug)]
pub(super) struct LoadFailure {
    pub(super) error: Box<PoolError>,
    /// The GPUs that were lost.
    pub(super) lost: Vec<usize>,
}

/// A model on its GPUs, shared by all lanes.
pub(super) struct GpuModel<L: GpuLoader> {
    loader: L,
    /// The contexts of its GPUs, in the order in which they are locked.
    contexts: Vec<Arc<RwLock<Context>>>,
    /// Only locked while one of the contexts is locked; `None` after one of them was destroyed.
    model: Mutex<Option<Arc<L::Model>>>,
}

impl<L: GpuLoader> GpuModel<L> {
    /// Loads the model, and returns it too: the slot may already be empty again when the caller reads it.
    pub(super) fn load(
        loader: L,
        contexts: Vec<Arc<RwLock<Context>>>,
    ) -> std::result::Result<(Arc<Self>, Arc<L::Model>), PoolError> {
        let this = Arc::new(Self { loader, contexts, model: Mutex::new(None) });
        let slot: Arc<dyn Slot> = Arc::<Self>::clone(&this);
        for (gpu, context) in this.contexts.iter().enumerate() {
            let mut context = context.write();
            context.models.retain(|model| model.strong_count() > 0);
            context.models.push(Arc::downgrade(&slot));
            if context.is_lost {
                this.reset_context(gpu, &mut context)?;
            }
        }
        // Other models continue to compute while this one is loaded for the first time.
        let contexts = read_all(&this.contexts);
        match this.loader.load() {
            Ok(model) => {
                let model = Arc::new(model);
                *this.slot() = Some(Arc::clone(&model));
                drop(contexts);
                Ok((this, model))
            }
            Err(LoadFailure { error, lost }) => {
                drop(contexts);
                this.mark_lost(&lost);
                Err(*error)
            }
        }
    }

    /// The loaded model; `None` after the context was destroyed.
    fn loaded_model(&self) -> Option<Arc<L::Model>> {
        self.slot().clone()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<L::Model>>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn loader(&self) -> &L {
        &self.loader
    }

    /// Lets the GPUs that were lost since `model` was loaded be reset before anything is loaded onto them.
    pub(super) fn reset_later(&self, model: &L::Model) {
        self.mark_lost(&self.loader.lost(model));
    }

    fn mark_lost(&self, lost: &[usize]) {
        if !lost.is_empty() {
            mark_lost(&mut write_all(&self.contexts), lost);
        }
    }

    /// The loaded model unless it has to be reloaded.
    pub(super) fn usable_model(&self) -> Option<Arc<L::Model>> {
        self.loaded_model().filter(|model| self.loader.lost(model).is_empty())
    }

    /// Computes with the model; other lanes may compute at the same time.
    fn run_shared<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        loop {
            {
                // The locks are held longer than the model: once a lane has one exclusively, the model is not in use.
                let _contexts = read_all(&self.contexts);
                if let Some(model) = self.usable_model() {
                    return compute(&model);
                }
            }
            self.reload_if_lost(&mut write_all(&self.contexts))?;
        }
    }

    /// Computes with the model while nothing else computes on its GPUs.
    fn run_exclusive<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        let mut contexts = write_all(&self.contexts);
        let model = self.reload_if_lost(&mut contexts)?;
        compute(&model)
    }

    /// The model, reloaded if necessary.
    fn reload_if_lost(&self, contexts: &mut [RwLockWriteGuard<'_, Context>]) -> Result<Arc<L::Model>> {
        if let Some(model) = self.usable_model() {
            return Ok(model);
        }
        // A model in the slot was lost with a context. An empty slot only lacks it in contexts that are already new.
        if let Some(model) = self.loaded_model() {
            mark_lost(contexts, &self.loader.lost(&model));
        }
        let device = self.loader.device();
        // Out of memory or a missing file: in any case the inputs are not at fault.
        let failed =
            |error: PoolError| BackendError::Device { device: device.to_owned(), message: with_causes(&error) };
        for (gpu, context) in contexts.iter_mut().enumerate().filter(|(_, context)| context.is_lost) {
            self.reset_context(gpu, context).map_err(failed)?;
        }
        tracing::warn!(device, "the model is reloaded");
        self.load_into(contexts).map_err(failed)
    }

    /// Destroys the context of a GPU with all models in it.
    fn reset_context(&self, gpu: usize, context: &mut Context) -> std::result::Result<(), PoolError> {
        context.models.iter().filter_map(Weak::upgrade).for_each(|model| model.clear());
        let failed = |message| PoolError::Gpu { device: self.loader.device().to_owned(), message };
        self.loader.reset(gpu).map_err(failed)?;
        context.is_lost = false;
        Ok(())
    }

    fn load_into(
        &self,
        contexts: &mut [RwLockWriteGuard<'_, Context>],
    ) -> std::result::Result<Arc<L::Model>, PoolError> {
        match self.loader.load() {
            Ok(model) => {
                let model = Arc::new(model);
                *self.slot() = Some(Arc::clone(&model));
                Ok(model)
            }
            Err(LoadFailure { error, lost }) => {
                mark_lost(contexts, &lost);
                Err(*error)
            }
        }
    }
}

fn mark_lost(contexts: &mut [RwLockWriteGuard<'_, Context>], lost: &[usize]) {
    for (gpu, context) in contexts.iter_mut().enumerate() {
        context.is_lost |= lost.contains(&gpu);
    }
}

impl<L: GpuLoader> Slot for GpuModel<L> {
    fn clear(&self) {
        drop(self.slot().take());
    }
}

/// One of the workers that share the model of a GPU, or of several.
pub(super) struct Lane<L: GpuLoader> {
    model: Arc<GpuModel<L>>,
    /// Passes that are still to be made alone.
    exclusive_passes: AtomicUsize,
}

impl<L: GpuLoader> Lane<L> {
    pub(super) fn new(model: Arc<GpuModel<L>>) -> Self {
        Self { model, exclusive_passes: AtomicUsize::new(0) }
    }

    /// The lane after a failure: it computes alone until it has succeeded a few times.
    pub(super) fn respawn(&self) -> Self {
        Self { model: Arc::clone(&self.model), exclusive_passes: AtomicUsize::new(EXCLUSIVE_PASSES) }
    }

    /// Computes with the model; a lost GPU is reset and the model reloaded first.
    pub(super) fn run<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        // A lane is used by one thread at a time.
        let exclusive_passes = self.exclusive_passes.load(Ordering::Relaxed);
        if exclusive_passes == 0 {
            return self.model.run_shared(compute);
        }
        let computed = self.model.run_exclusive(compute);
        if computed.is_ok() {
            self.exclusive_passes.store(exclusive_passes - 1, Ordering::Relaxed);
        }
        computed
    }
}

#[cfg(test)]
mod tests;
