//! The contexts of GPUs, and their locks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a lock is waited for at first while other locks are held.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// How long at most: longer than any pass that makes progress.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// The context of a GPU in this process.
#[derive(Default)]
pub(in crate::placement) struct Context {
    pub(super) is_lost: bool,
    /// The models in it.
    pub(super) models: Vec<Weak<dyn Slot>>,
}

/// A model, as its context refers to it.
pub(super) trait Slot: Send + Sync {
    /// Drops the model, so that nothing holds its GPUs open.
    fn clear(&self);
}

/// The context of a GPU by its ordinal.
pub(in crate::placement) fn context(ordinal: u32) -> Arc<RwLock<Context>> {
    static CONTEXTS: Mutex<BTreeMap<u32, Arc<RwLock<Context>>>> = Mutex::new(BTreeMap::new());
    Arc::clone(CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner).entry(ordinal).or_default())
}

/// Holds contexts shared: none of them is destroyed meanwhile.
pub(super) fn read_all(contexts: &[Arc<RwLock<Context>>]) -> Vec<RwLockReadGuard<'_, Context>> {
    lock_all(contexts, RwLock::try_read_for)
}

/// Holds contexts exclusively: nothing else computes in them meanwhile.
pub(super) fn write_all(contexts: &[Arc<RwLock<Context>>]) -> Vec<RwLockWriteGuard<'_, Context>> {
    lock_all(contexts, RwLock::try_write_for)
}

/// Locks contexts in their order. Whoever needs a context that is held waits with it for the next ones, which is forever
/// if one of those hangs. So after a while all are released for as long, and then locked again.
fn lock_all<'a, G>(
    contexts: &'a [Arc<RwLock<Context>>],
    lock: impl Fn(&'a RwLock<Context>, Duration) -> Option<G>,
) -> Vec<G> {
    let mut wait = SHORTEST_WAIT;
    loop {
        // Nothing waits for those who wait for the first one.
        let limits = [Duration::MAX].into_iter().chain(std::iter::repeat(wait));
        if let Some(locked) = contexts.iter().zip(limits).map(|(context, limit)| lock(context, limit)).collect() {
            return locked;
        }
        thread::sleep(wait);
        wait = (2 * wait).min(LONGEST_WAIT);
    }
}
