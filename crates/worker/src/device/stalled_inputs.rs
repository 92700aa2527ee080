//! Inputs that held a device up: they are refused at once when they come again.
//!
//! A caller whose inputs are refused asks for parts of them to find the one. Without this memory each of these calls,
//! and each copy of the text in the corpus, would cost the whole wait again and another thread.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use polylance_backend::{BackendError, Result};

use crate::queues::Ids;

/// Inputs that are remembered at most: what is more costs the wait again.
const MOST: usize = 4096;

/// Inputs with what is said of them.
#[derive(Debug)]
pub(crate) struct Refused<I>(Mutex<HashMap<I, String>>);

impl<I: Ids> Refused<I> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    pub(crate) fn add(&self, input: I, why: String) {
        let mut refused = self.lock();
        if refused.len() < MOST {
            refused.insert(input, why);
        }
    }

    /// # Errors
    /// [`BackendError::Input`] when one of these is known.
    pub(crate) fn check(&self, inputs: &[I]) -> Result<()> {
        let refused = self.lock();
        if refused.is_empty() {
            return Ok(());
        }
        let known = inputs.iter().find_map(|input| refused.get(input));
        known.map_or(Ok(()), |why| Err(BackendError::Input(why.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<I, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
