//! Inputs that stalled a device: they are refused at once when they are submitted again.
//!
//! A caller whose batch is refused retries parts of it to find the input. Without this memory each of these calls, and
//! each copy of the text in the corpus, would cost the full time limit and another thread.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use polylance_backend::{BackendError, Result};

use super::worker::TokenCount;

/// Maximum number of inputs that are remembered. Any beyond it cost the time limit again.
const MAX_STALLED_INPUTS: usize = 4096;

/// Inputs with the message that refuses them.
#[derive(Debug)]
pub(super) struct StalledInputs<I>(Mutex<HashMap<I, String>>);

impl<I: TokenCount> StalledInputs<I> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    pub(super) fn add(&self, input: I, message: String) {
        let mut stalled = self.lock();
        if stalled.len() < MAX_STALLED_INPUTS {
            stalled.insert(input, message);
        }
    }

    /// # Errors
    /// [`BackendError::Input`] when one of these inputs stalled a device before.
    pub(super) fn check(&self, inputs: &[I]) -> Result<()> {
        let stalled = self.lock();
        if stalled.is_empty() {
            return Ok(());
        }
        let message = inputs.iter().find_map(|input| stalled.get(input));
        message.map_or(Ok(()), |message| Err(BackendError::Input(message.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<I, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
