//! A model in a GPU's memory: the lanes share it, and it is reloaded after the GPU was lost.
//!
//! A GPU that fails loses its context: every call returns an error until the context is destroyed, with everything of
//! this process in it, and created again. So there is one lock per GPU. Passes hold it shared. A lane holds it
//! exclusively to destroy the context, to load into a new one, or to find out whether its own batch breaks the GPU.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use polylance_backend::{BackendError, Result};

use crate::error::{PoolError, with_causes};

/// Batches in flight on a GPU, each with its own worker: the next one is packed and sent while one is computed.
pub const GPU_LANES: usize = 2;

/// Passes that a lane makes alone on its GPU after a failure. A failure ends the batches of all lanes, so a lane has to
/// be alone to find out which batch caused it. The supervisor needs three: the batch, an input that was computed
/// before, and the batch again.
const EXCLUSIVE_PASSES: usize = 3;

/// Loads a model onto a GPU, and makes a lost GPU usable again.
pub(super) trait GpuLoader: Send + Sync + 'static {
    /// The loaded model. It holds the GPU open.
    type Model: Send + Sync + 'static;

    /// The GPU's device name.
    fn device(&self) -> &str;

    /// Opens the GPU and loads the model.
    fn load(&self) -> std::result::Result<Self::Model, LoadFailure>;

    /// Whether the GPU was lost since the model was loaded.
    fn is_lost(&self, model: &Self::Model) -> bool;

    /// Destroys the context. Nothing may hold the GPU open.
    fn reset(&self) -> std::result::Result<(), String>;
}

/// A model that was not loaded onto a GPU.
#[derive(Debug)]
pub(super) struct LoadFailure {
    pub(super) error: Box<PoolError>,
    /// Whether the GPU was lost.
    pub(super) is_lost: bool,
}

/// The context of a GPU in this process.
#[derive(Default)]
pub(super) struct Context {
    is_lost: bool,
    /// The models in it.
    models: Vec<Weak<dyn Slot>>,
}

/// A model, as its context refers to it.
trait Slot: Send + Sync {
    /// Drops the model, so that nothing holds the GPU open.
    fn clear(&self);
}

/// The context of a GPU by its ordinal.
pub(super) fn context(ordinal: u32) -> Arc<RwLock<Context>> {
    static CONTEXTS: Mutex<BTreeMap<u32, Arc<RwLock<Context>>>> = Mutex::new(BTreeMap::new());
    Arc::clone(CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner).entry(ordinal).or_default())
}

/// A model on a GPU, shared by all lanes.
pub(super) struct GpuModel<L: GpuLoader> {
    loader: L,
    context: Arc<RwLock<Context>>,
    /// Only locked while the context is locked; `None` after the context was destroyed.
    model: Mutex<Option<Arc<L::Model>>>,
}

impl<L: GpuLoader> GpuModel<L> {
    /// Loads the model, and returns it too: the slot may already be empty again when the caller reads it.
    pub(super) fn load(
        loader: L,
        context: Arc<RwLock<Context>>,
    ) -> std::result::Result<(Arc<Self>, Arc<L::Model>), PoolError> {
        let this = Arc::new(Self { loader, context, model: Mutex::new(None) });
        let slot: Arc<dyn Slot> = Arc::<Self>::clone(&this);
        let mut context = this.context.write().unwrap_or_else(PoisonError::into_inner);
        context.models.retain(|model| model.strong_count() > 0);
        context.models.push(Arc::downgrade(&slot));
        if context.is_lost {
            this.reset_context(&mut context)?;
        }
        drop(context);
        // Other models continue to compute while this one is loaded for the first time.
        let context = this.context.read().unwrap_or_else(PoisonError::into_inner);
        match this.loader.load() {
            Ok(model) => {
                let model = Arc::new(model);
                *this.slot() = Some(Arc::clone(&model));
                drop(context);
                Ok((this, model))
            }
            Err(LoadFailure { error, is_lost }) => {
                drop(context);
                this.context.write().unwrap_or_else(PoisonError::into_inner).is_lost |= is_lost;
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

    /// The loaded model unless it has to be reloaded.
    fn usable_model(&self) -> Option<Arc<L::Model>> {
        self.loaded_model().filter(|model| !self.loader.is_lost(model))
    }

    /// Computes with the model; other lanes may compute at the same time.
    fn run_shared<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        loop {
            {
                // The lock is held longer than the model: once a lane has it exclusively, no model is in use.
                let _context = self.context.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(model) = self.usable_model() {
                    return compute(&model);
                }
            }
            self.reload_if_lost(&mut self.context.write().unwrap_or_else(PoisonError::into_inner))?;
        }
    }

    /// Computes with the model while nothing else computes on this GPU.
    fn run_exclusive<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
        let model = self.reload_if_lost(&mut context)?;
        compute(&model)
    }

    /// The model, reloaded if necessary.
    fn reload_if_lost(&self, context: &mut Context) -> Result<Arc<L::Model>> {
        if let Some(model) = self.usable_model() {
            return Ok(model);
        }
        // A model in the slot was lost with the context. An empty slot only lacks it in a context that is already new.
        context.is_lost |= self.loaded_model().is_some();
        let device = self.loader.device();
        // Out of memory or a missing file: in any case the inputs are not at fault.
        let failed =
            |error: PoolError| BackendError::Device { device: device.to_owned(), message: with_causes(&error) };
        if context.is_lost {
            self.reset_context(context).map_err(failed)?;
        }
        tracing::warn!(device, "the model is reloaded");
        self.load_into(context).map_err(failed)
    }

    /// Destroys the context with all models in it.
    fn reset_context(&self, context: &mut Context) -> std::result::Result<(), PoolError> {
        context.models.iter().filter_map(Weak::upgrade).for_each(|model| model.clear());
        let failed = |message| PoolError::Gpu { device: self.loader.device().to_owned(), message };
        self.loader.reset().map_err(failed)?;
        context.is_lost = false;
        Ok(())
    }

    fn load_into(&self, context: &mut Context) -> std::result::Result<Arc<L::Model>, PoolError> {
        match self.loader.load() {
            Ok(model) => {
                let model = Arc::new(model);
                *self.slot() = Some(Arc::clone(&model));
                Ok(model)
            }
            Err(LoadFailure { error, is_lost }) => {
                context.is_lost |= is_lost;
                Err(*error)
            }
        }
    }
}

impl<L: GpuLoader> Slot for GpuModel<L> {
    fn clear(&self) {
        drop(self.slot().take());
    }
}

/// One of the workers that share the model of a GPU.
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
