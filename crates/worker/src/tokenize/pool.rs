//! The tokenizer and its threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use polylance_backend::{BackendError, Chunk, Result, TokenizeSpec};
use polylance_encoder::{ModelFiles, TokenizerSettings, TruncationSide};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use tokio::sync::{Semaphore, oneshot};

use super::{
    charsmap,
    chunker::Chunker,
    normalizer::{TextNormalizer, Tokenizer},
};
use crate::error::{PoolError, panic_message};

/// Bytes of text that may wait for a thread or be tokenized.
const MAX_WAITING_TEXT_BYTES: usize = 64 << 20;

/// Reads a `tokenizer.json` with the settings of the model's folder. Its own truncation and padding are switched off.
pub(crate) fn read_tokenizer(
    model: &str,
    json: &[u8],
    settings: TokenizerSettings,
) -> std::result::Result<Tokenizer, PoolError> {
    let refused = |message: String| PoolError::Tokenizer { model: model.to_owned(), message };
    let unreadable = |error: tokenizers::Error| refused(error.to_string());
    charsmap::check(json).map_err(refused)?;
    // The library checks the parts of a tokenizer while it builds them, and some of the checks panic.
    let read = catch_unwind(|| Tokenizer::from_bytes(json))
        .map_err(|panic| refused(format!("the tokenizer library panicked: {}", panic_message(panic.as_ref()))))?;
    let mut tokenizer = read.map_err(unreadable)?;
    let normalizer = tokenizer.get_normalizer().cloned().unwrap_or_default();
    let normalizer = normalizer.with(settings.compose, settings.lowercase);
    tokenizer.with_normalizer(Some::<TextNormalizer>(normalizer)).map_err(unreadable)?;
    tokenizer.with_truncation(None).map_err(unreadable)?.with_padding(None);
    Ok(tokenizer)
}

/// Threads for work on texts. The texts of one call are spread over all of them.
#[derive(Debug)]
pub(crate) struct TextThreads(ThreadPool);

impl TextThreads {
    pub(crate) fn start(threads: usize) -> std::result::Result<Self, PoolError> {
        let named = ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("tokenizer {at}"));
        Ok(Self(named.build().map_err(|error| PoolError::Thread(std::io::Error::other(error)))?))
    }

    /// Does the work on each item. A panic fails the whole call, so work that may panic calls [`catch_panic`] itself.
    pub(crate) async fn map<T, U>(&self, items: Vec<T>, work: impl Fn(T) -> U + Send + Sync + 'static) -> Result<Vec<U>>
    where
        T: Send + 'static,
        U: Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        self.0.spawn(move || {
            let one = |item| if reply.is_closed() { Err(BackendError::Closed) } else { catch_panic(|| Ok(work(item))) };
            let done: Result<Vec<U>> = items.into_par_iter().map(one).collect();
            drop(reply.send(done));
        });
        result.await.unwrap_or(Err(BackendError::Closed))
    }
}

/// The tokenizer and its threads.
#[derive(Debug)]
pub(crate) struct TokenizerPool {
    tokenizer: Arc<Tokenizer>,
    truncation_side: TruncationSide,
    threads: Arc<TextThreads>,
    /// Permits for bytes of text that wait or are tokenized.
    permits: Arc<Semaphore>,
}

impl TokenizerPool {
    /// Reads a model's tokenizer and starts the threads.
    pub(crate) fn open(files: &ModelFiles, threads: usize) -> std::result::Result<Self, PoolError> {
        let settings = files.tokenizer_settings();
        let tokenizer = Arc::new(read_tokenizer(files.name(), &files.tokenizer_json()?, settings)?);
        let (threads, permits) =
            (Arc::new(TextThreads::start(threads)?), Arc::new(Semaphore::new(MAX_WAITING_TEXT_BYTES)));
        Ok(Self { tokenizer, truncation_side: settings.truncation_side, threads, permits })
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The threads, for other work on texts.
    pub(crate) fn threads(&self) -> &TextThreads {
        &self.threads
    }

    /// Tokens of the vocabulary, added tokens included.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Bytes of text that wait or are being tokenized.
    pub(crate) fn waiting_bytes(&self) -> usize {
        MAX_WAITING_TEXT_BYTES - self.permits.available_permits()
    }

    /// Cuts each text into chunks.
    pub(crate) async fn chunks(&self, texts: Vec<String>, spec: TokenizeSpec) -> Result<Vec<Vec<Chunk>>> {
        let bytes: usize = texts.iter().map(String::len).sum();
        let permits = u32::try_from(bytes.min(MAX_WAITING_TEXT_BYTES)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.permits).acquire_many_owned(permits).await.map_err(|_| BackendError::Closed)?;
        let (reply, result) = oneshot::channel();
        let (tokenizer, side) = (Arc::clone(&self.tokenizer), self.truncation_side);
        self.threads.0.spawn(move || {
            let abandoned = || reply.is_closed();
            let chunks = catch_panic(|| Ok(Chunker::new(&tokenizer, &spec)?.truncating(side))).and_then(|chunker| {
                let chunks = |text: &String| {
                    if abandoned() { Err(BackendError::Closed) } else { catch_panic(|| chunker.chunks(text)) }
                };
                texts.par_iter().map(chunks).collect()
            });
            drop((texts, permit));
            drop(reply.send(chunks));
        });
        result.await.unwrap_or(Err(BackendError::Closed))
    }
}

/// Does work that calls the tokenizer library. Its panic refuses the text; in a thread of the pool it would end the
/// process.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(BackendError::Input(format!("the tokenizer failed: {}", panic_message(panic.as_ref()))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_refuses_the_text() {
        let error = catch_panic::<()>(|| panic!("at byte {}", 7)).unwrap_err();
        assert_eq!(error.to_string(), "input refused: the tokenizer failed: at byte 7");
        assert_eq!(catch_panic(|| Ok(3)).unwrap(), 3);
    }
}
