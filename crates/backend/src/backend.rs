//! A backend: tokenizer threads and devices behind one trait.

use std::{fmt, ops::Range, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use polylance_schema::{Chunking, TaskSpec};

use crate::{Annotated, Load, Result};

/// The properties of a backend that are known without computing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// Dimensions of a vector.
    pub dim: usize,
    /// Maximum number of tokens in an input, special tokens included.
    pub max_tokens: usize,
    /// Device names, as configured.
    pub devices: Vec<String>,
    /// Number of tokens that keeps all devices busy once: a good size for the window of one [`Backend::encode`] call.
    pub window_tokens: usize,
}

/// How texts become inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizeSpec {
    /// Precedes every chunk.
    pub prefix: String,
    /// Splitting or truncation, with the limit.
    pub chunking: Chunking,
}

/// One input of the model, with its range in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The slice of the document, in Unicode scalar values.
    pub chars: Range<u64>,
    /// The same slice in bytes.
    pub bytes: Range<usize>,
    /// Token ids, prefix and special tokens included.
    pub input_ids: Vec<u32>,
    /// Whether text after this slice was cut off.
    pub truncated: bool,
}

/// One input of the model for a pass that also computes heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeInput {
    /// Token ids, prefix and special tokens included.
    pub input_ids: Vec<u32>,
    /// The text of these tokens, without the prefix.
    pub text: String,
}

/// The output of one pass, in input order.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The vectors.
    pub embeddings: Embeddings,
    /// For each input, the answer of each of [`Backend::heads`].
    pub annotations: Vec<Vec<Annotated>>,
}

/// Vectors in input order.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Dimensions of a vector.
    pub dim: usize,
    /// `[inputs, dim]`, row major.
    pub values: Vec<f32>,
}

/// Tokenizer threads and devices behind bounded queues.
///
/// Laws: results are in input order; an input's result does not depend on its neighbours or on the number of devices; a full
/// queue makes the future wait, so that nothing is buffered without bound; dropping a future cancels its work and frees its
/// share of the queue.
pub trait Backend: fmt::Debug + Send + Sync {
    /// The backend's properties.
    fn info(&self) -> &BackendInfo;

    /// Cuts each text into at least one chunk and tokenizes it, prefix included.
    fn tokenize(&self, texts: Vec<String>, spec: &TokenizeSpec) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>>>;

    /// Encodes each row of tokens into a vector.
    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings>>;

    /// The queued and the running work. It is cheap, for display. The work of a call is gone from it when the call returns.
    /// It is empty for a backend without queues.
    fn load(&self) -> Load {
        Load::default()
    }

    /// The tasks of the heads that read the token states of the embedding's pass.
    fn heads(&self) -> &[TaskSpec] {
        &[]
    }

    /// [`Backend::encode`], and in the same pass the answer of each of [`Backend::heads`] for each input. An input that a
    /// head cannot annotate has its vector, and the reason in place of the answer.
    fn encode_with_heads(&self, inputs: Vec<EncodeInput>) -> BoxFuture<'static, Result<Encoded>> {
        let annotations = vec![Vec::new(); inputs.len()];
        let embeddings = self.encode(inputs.into_iter().map(|input| input.input_ids).collect());
        async move { Ok(Encoded { embeddings: embeddings.await?, annotations }) }.boxed()
    }
}

/// The backend as a session extension: a plan finds it where it runs and needs no handle of its own.
#[derive(Debug, Clone)]
pub struct BackendHandle(pub Arc<dyn Backend>);
