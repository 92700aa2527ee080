//! A model in a GPU's memory: its lanes share it, and it is loaded again when the GPU was lost.
//!
//! A GPU that fails loses its context: every call returns an error until the context is destroyed, with everything of
//! this process in it, and created again. So there is one lock per GPU. Passes hold it shared; a lane that destroys the
//! context, loads into a new one, or has to be alone to learn whether its own batch brings the GPU down, holds it
//! exclusively.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use polylance_backend::{BackendError, Result};

use crate::{PoolError, error::with_causes};

/// Batches in flight on a GPU, each with a worker of its own: the next one is packed and sent while one computes.
pub const GPU_LANES: usize = 2;

/// Passes that a lane makes alone on its GPU after a failure. A failure ends the batches of all lanes, and only alone a
/// lane learns whose it was. The supervisor needs three: the batch, what the device could compute before, and the batch.
const ALONE: usize = 3;

/// Loads a model onto a GPU, and makes a GPU usable again.
pub(crate) trait GpuLoader: Send + Sync + 'static {
    /// What is loaded; it holds the GPU open.
    type Model: Send + Sync + 'static;

    /// The GPU's name as a device.
    fn device(&self) -> &str;

    /// Opens the GPU and loads the model.
    fn load(&self) -> std::result::Result<Self::Model, LoadFailure>;

    /// Whether the GPU was lost since the model was loaded.
    fn is_lost(&self, model: &Self::Model) -> bool;

    /// Destroys the context; nothing holds the GPU open.
    fn reset(&self) -> std::result::Result<(), String>;
}

/// Why a model was not loaded onto a GPU.
#[derive(Debug)]
pub(crate) struct LoadFailure {
    pub(crate) error: Box<PoolError>,
    /// Whether the GPU was lost.
    pub(crate) is_lost: bool,
}

/// The context of a GPU in this process.
#[derive(Default)]
pub(crate) struct Context {
    is_lost: bool,
    /// The models in it.
    models: Vec<Weak<dyn Slot>>,
}

/// A place for a model in a context.
trait Slot: Send + Sync {
    /// Drops the model, so that nothing holds the GPU open.
    fn empty(&self);
}

/// The context of a GPU by its ordinal.
pub(crate) fn context(ordinal: u32) -> Arc<RwLock<Context>> {
    static CONTEXTS: Mutex<BTreeMap<u32, Arc<RwLock<Context>>>> = Mutex::new(BTreeMap::new());
    Arc::clone(CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner).entry(ordinal).or_default())
}

/// A model on a GPU, the same for all lanes.
pub(crate) struct GpuModel<L: GpuLoader> {
    loader: L,
    context: Arc<RwLock<Context>>,
    /// Only locked while the context is, and `None` after the context was destroyed.
    model: Mutex<Option<Arc<L::Model>>>,
}

impl<L: GpuLoader> GpuModel<L> {
    /// Loads the model, and returns it too: the slot may be empty again when the caller looks.
    pub(crate) fn load(
        loader: L,
        context: Arc<RwLock<Context>>,
    ) -> std::result::Result<(Arc<Self>, Arc<L::Model>), PoolError> {
        let this = Arc::new(Self { loader, context, model: Mutex::new(None) });
        let slot: Arc<dyn Slot> = Arc::<Self>::clone(&this);
        let mut context = this.context.write().unwrap_or_else(PoisonError::into_inner);
        context.models.retain(|model| model.strong_count() > 0);
        context.models.push(Arc::downgrade(&slot));
        if context.is_lost {
            this.renew(&mut context)?;
        }
        drop(context);
        // Other models go on computing while this one is loaded for the first time.
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

    /// The model as it is loaded now; `None` after the context was destroyed.
    fn current(&self) -> Option<Arc<L::Model>> {
        self.slot().clone()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<L::Model>>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model unless it has to be loaded again.
    fn usable(&self) -> Option<Arc<L::Model>> {
        self.current().filter(|model| !self.loader.is_lost(model))
    }

    /// Computes with the model while other lanes may compute too.
    fn shared<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        loop {
            {
                // The lock is held longer than the model, so that whoever holds it exclusively finds the GPU closed.
                let _context = self.context.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(model) = self.usable() {
                    return compute(&model);
                }
            }
            self.load_again(&mut self.context.write().unwrap_or_else(PoisonError::into_inner))?;
        }
    }

    /// Computes with the model while nothing else does on this GPU.
    fn alone<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
        let model = self.load_again(&mut context)?;
        compute(&model)
    }

    /// The model, loaded again if it has to be.
    fn load_again(&self, context: &mut Context) -> Result<Arc<L::Model>> {
        if let Some(model) = self.usable() {
            return Ok(model);
        }
        // A model that is there was lost; one that is not there is only missing from a context that another pool created.
        context.is_lost |= self.current().is_some();
        let device = self.loader.device();
        // Out of memory or a missing file: whatever it is, it is no fault of the inputs.
        let failed =
            |error: PoolError| BackendError::Device { device: device.to_owned(), message: with_causes(&error) };
        if context.is_lost {
            self.renew(context).map_err(failed)?;
        }
        tracing::warn!(device, "the model is loaded again");
        self.load_into(context).map_err(failed)
    }

    /// Destroys the context with all models in it.
    fn renew(&self, context: &mut Context) -> std::result::Result<(), PoolError> {
        context.models.iter().filter_map(Weak::upgrade).for_each(|model| model.empty());
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
    fn empty(&self) {
        drop(self.slot().take());
    }
}

/// A place in line at a GPU: one of the workers that share its model.
pub(crate) struct Lane<L: GpuLoader> {
    model: Arc<GpuModel<L>>,
    /// Passes that are still made alone.
    alone: AtomicUsize,
}

impl<L: GpuLoader> Lane<L> {
    pub(crate) fn new(model: Arc<GpuModel<L>>) -> Self {
        Self { model, alone: AtomicUsize::new(0) }
    }

    /// The lane after a failure: it is alone until it has computed something again.
    pub(crate) fn another(&self) -> Self {
        Self { model: Arc::clone(&self.model), alone: AtomicUsize::new(ALONE) }
    }

    /// Computes with the model; a GPU that was lost is opened and loaded again first.
    pub(crate) fn pass<T>(&self, compute: impl FnOnce(&L::Model) -> Result<T>) -> Result<T> {
        // A lane is used by one thread at a time.
        let alone = self.alone.load(Ordering::Relaxed);
        if alone == 0 {
            return self.model.shared(compute);
        }
        let computed = self.model.alone(compute);
        if computed.is_ok() {
            self.alone.store(alone - 1, Ordering::Relaxed);
        }
        computed
    }
}

#[cfg(test)]
mod tests;
