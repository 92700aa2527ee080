//! Tokenizer threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use polylance_backend::{BackendError, Chunk, Result, TokenizeSpec};
use polylance_encoder::{ModelFiles, TokenizerSettings, TruncationSide};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    PoolError, charsmap,
    chunker::Chunker,
    error::panic_message,
    normalizer::{TextNormalizer, Tokenizer},
};

/// Bytes of text that may wait for a thread.
const ROOM: usize = 64 << 20;

/// Reads a `tokenizer.json`, with the settings of the model's folder; its own truncation and padding are switched off.
pub(crate) fn tokenizer(
    model: &str,
    json: &[u8],
    settings: TokenizerSettings,
) -> std::result::Result<Tokenizer, PoolError> {
    let unreadable =
        |error: tokenizers::Error| PoolError::Tokenizer { model: model.to_owned(), message: error.to_string() };
    charsmap::check(json).map_err(|message| PoolError::Tokenizer { model: model.to_owned(), message })?;
    // The library checks its parts while it makes them, and some of the checks are panics.
    let read = catch_unwind(|| Tokenizer::from_bytes(json)).map_err(|panic| {
        let message = format!("the library that reads it gave up: {}", panic_message(panic.as_ref()));
        PoolError::Tokenizer { model: model.to_owned(), message }
    })?;
    let mut tokenizer = read.map_err(unreadable)?;
    let normalizer = tokenizer.get_normalizer().cloned().unwrap_or_default();
    let normalizer = normalizer.with(settings.compose, settings.lowercase);
    tokenizer.with_normalizer(Some::<TextNormalizer>(normalizer)).map_err(unreadable)?;
    tokenizer.with_truncation(None).map_err(unreadable)?.with_padding(None);
    Ok(tokenizer)
}

/// Threads for work on texts. The texts of one call are spread over all of them.
#[derive(Debug)]
pub(crate) struct Threads(ThreadPool);

impl Threads {
    pub(crate) fn start(threads: usize) -> std::result::Result<Self, PoolError> {
        let named = ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("tokenizer {at}"));
        Ok(Self(named.build().map_err(|error| PoolError::Thread(std::io::Error::other(error)))?))
    }

    /// Work on each item. A panic of a library fails the call: work that may panic is [`guarded`] itself.
    pub(crate) async fn map<T, U>(&self, items: Vec<T>, work: impl Fn(T) -> U + Send + Sync + 'static) -> Result<Vec<U>>
    where
        T: Send + 'static,
        U: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.0.spawn(move || {
            let one = |item| if reply.is_closed() { Err(BackendError::Closed) } else { guarded(|| Ok(work(item))) };
            let done: Result<Vec<U>> = items.into_par_iter().map(one).collect();
            drop(reply.send(done));
        });
        answer.await.unwrap_or(Err(BackendError::Closed))
    }
}

/// The tokenizer and its threads.
#[derive(Debug)]
pub(crate) struct Tokenizers {
    tokenizer: Arc<Tokenizer>,
    truncation_side: TruncationSide,
    threads: Arc<Threads>,
    room: Arc<Semaphore>,
}

impl Tokenizers {
    /// Reads a model's tokenizer and starts the threads.
    pub(crate) fn open(files: &ModelFiles, threads: usize) -> std::result::Result<Self, PoolError> {
        let settings = files.tokenizer_settings();
        let tokenizer = Arc::new(tokenizer(files.name(), &files.tokenizer_json()?, settings)?);
        let (threads, room) = (Arc::new(Threads::start(threads)?), Arc::new(Semaphore::new(ROOM)));
        Ok(Self { tokenizer, truncation_side: settings.truncation_side, threads, room })
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The threads, for other work on texts.
    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Ids of the vocabulary, added tokens included.
    pub(crate) fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Bytes of text that wait or are being cut.
    pub(crate) fn waiting(&self) -> usize {
        ROOM - self.room.available_permits()
    }

    /// The chunks of each text.
    pub(crate) async fn chunks(&self, texts: Vec<String>, spec: TokenizeSpec) -> Result<Vec<Vec<Chunk>>> {
        let bytes: usize = texts.iter().map(String::len).sum();
        let permits = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| BackendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let (tokenizer, side) = (Arc::clone(&self.tokenizer), self.truncation_side);
        self.threads.0.spawn(move || {
            let abandoned = || reply.is_closed();
            let chunks = guarded(|| Ok(Chunker::new(&tokenizer, &spec)?.truncating(side))).and_then(|chunker| {
                let chunks = |text: &String| {
                    if abandoned() { Err(BackendError::Closed) } else { guarded(|| chunker.chunks(text)) }
                };
                texts.par_iter().map(chunks).collect()
            });
            drop((texts, permit));
            drop(reply.send(chunks));
        });
        answer.await.unwrap_or(Err(BackendError::Closed))
    }
}

/// A panic of the tokenizer's library refuses the text: in a thread of the pool it would end the process.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(BackendError::Input(format!("the tokenizer failed: {}", panic_message(panic.as_ref()))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_refuses_the_text() {
        let error = guarded::<()>(|| panic!("at byte {}", 7)).unwrap_err();
        assert_eq!(error.to_string(), "input refused: the tokenizer failed: at byte 7");
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
    }
}
