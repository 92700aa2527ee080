//! Tokenizer threads.

use std::sync::Arc;

use polylance_backend::{BackendError, Chunk, Result, TokenizeSpec};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use tokenizers::Tokenizer;
use tokio::sync::{Semaphore, oneshot};

use crate::{PoolError, chunker::Chunker};

/// Bytes of text that may wait for a thread.
const ROOM: usize = 64 << 20;

/// The tokenizer and its threads. Texts of one call are spread over all threads.
#[derive(Debug)]
pub(crate) struct Tokenizers {
    tokenizer: Arc<Tokenizer>,
    threads: Arc<ThreadPool>,
    room: Arc<Semaphore>,
}

impl Tokenizers {
    /// Reads a `tokenizer.json`; its own truncation and padding are switched off.
    pub(crate) fn open(model: &str, json: &[u8], threads: usize) -> std::result::Result<Self, PoolError> {
        let unreadable = |error: tokenizers::Error| PoolError::Tokenizer { model: model.to_owned(), message: error.to_string() };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(unreadable)?;
        tokenizer.with_truncation(None).map_err(unreadable)?.with_padding(None);
        let named = ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("tokenizer {at}"));
        let threads = named.build().map_err(|error| PoolError::Thread(std::io::Error::other(error)))?;
        Ok(Self { tokenizer: Arc::new(tokenizer), threads: Arc::new(threads), room: Arc::new(Semaphore::new(ROOM)) })
    }

    /// Ids of the vocabulary, added tokens included.
    pub(crate) fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The chunks of each text.
    pub(crate) async fn chunks(&self, texts: Vec<String>, spec: TokenizeSpec) -> Result<Vec<Vec<Chunk>>> {
        let bytes: usize = texts.iter().map(String::len).sum();
        let permits = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| BackendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let tokenizer = Arc::clone(&self.tokenizer);
        self.threads.spawn(move || {
            if !reply.is_closed() {
                let chunks = Chunker::new(&tokenizer, &spec)
                    .and_then(|chunker| texts.par_iter().with_min_len(8).map(|text| chunker.chunks(text)).collect());
                drop(reply.send(chunks));
            }
            drop(permit);
        });
        answer.await.unwrap_or(Err(BackendError::Closed))
    }
}
