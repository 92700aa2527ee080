//! The contract between operators and devices.
//!
//! Operators hold texts and rows of ids, devices turn them into chunks and vectors. Neither knows the
//! other's library: no candle here, no DataFusion. The device pool and the fake device both fulfil
//! [`Backend`], and `polylance_testkit::conformance` says what that means.

mod annotate;
mod load;

use std::{error::Error, fmt, ops::Range, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use polylance_schema::{Chunking, TaskSpec};

pub use annotate::{
    AnnotateInput, Annotated, Annotation, Annotator, AnnotatorHandle, Answer, LabelScore, Span, TokenScore,
};
pub use load::Load;

/// What an operator may know about a backend without asking it to compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// Dimensions of a vector.
    pub dim: usize,
    /// Ids in one input at most, special tokens included.
    pub max_tokens: usize,
    /// Device names, as configured.
    pub devices: Vec<String>,
    /// Ids that keep all devices busy once: a good size for the window of one [`Backend::encode`] call.
    pub window_tokens: usize,
}

/// How texts become inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizeSpec {
    /// Put before every chunk.
    pub prefix: String,
    /// Chunks or truncation, with the limit.
    pub chunking: Chunking,
}

/// One input of the model, and where it came from in its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The slice of the document, in Unicode scalar values.
    pub chars: Range<u64>,
    /// The same slice in bytes.
    pub bytes: Range<usize>,
    /// Ids, prefix and special tokens included.
    pub input_ids: Vec<u32>,
    /// Whether text after this slice was cut off.
    pub truncated: bool,
}

/// One input of the model for a pass in which heads are asked too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeInput {
    /// Ids, prefix and special tokens included.
    pub input_ids: Vec<u32>,
    /// The text that they stand for, without the prefix.
    pub text: String,
}

/// What one pass gave, in input order.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The vectors.
    pub embeddings: Embeddings,
    /// For each input, what each of [`Backend::heads`] says of it.
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

/// What went wrong, by what a caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The input cannot be computed by any device: quarantine the row. So it is with one that alone does not fit into
    /// a device's memory, one that brings a device's library down each time, and one with which a device makes no
    /// progress. Of many inputs at least one is refused: ask for parts to find it.
    #[error("input refused: {0}")]
    Input(String),
    /// The device ran out of memory: split the batch and try again. A pool does so itself.
    #[error("device {device} is out of memory")]
    OutOfMemory {
        /// The device's name.
        device: String,
    },
    /// The device failed: stop the run. A pool restarts a device whose library panics or makes no progress, and leaves
    /// its work to the others when that is in vain: a caller hears of it when no device is left.
    #[error("device {device} failed: {message}")]
    Device {
        /// The device's name.
        device: String,
        /// The device library's own words.
        message: String,
    },
    /// The model could not be loaded, which was left until it was needed: what is inside says why.
    #[error("{0}")]
    Load(Arc<dyn Error + Send + Sync>),
    /// The pool has been shut down: stop.
    #[error("the device pool is closed")]
    Closed,
}

/// A result whose error is a [`BackendError`].
pub type Result<T> = std::result::Result<T, BackendError>;

/// Tokenizer threads and devices behind bounded queues.
///
/// Laws: results are in input order; an input's result does not depend on its neighbours or on the
/// number of devices; a full queue makes the future wait, it never buffers without bound; dropping a
/// future abandons its work and gives its room back.
pub trait Backend: fmt::Debug + Send + Sync {
    /// What the backend is, known without computing.
    fn info(&self) -> &BackendInfo;

    /// Cuts each text into at least one chunk and tokenizes it, prefix included.
    fn tokenize(&self, texts: Vec<String>, spec: &TokenizeSpec) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>>>;

    /// Encodes each row of ids into a vector.
    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings>>;

    /// What waits and what is in work: cheap, to be shown. What a call has asked for is gone from it when the call is
    /// answered. Nothing for a backend without queues.
    fn load(&self) -> Load {
        Load::default()
    }

    /// What the heads are asked that stand on the embedding's own token states.
    fn heads(&self) -> &[TaskSpec] {
        &[]
    }

    /// [`Backend::encode`], and in the same pass what each of [`Backend::heads`] says of each input. An input that a
    /// head cannot annotate says why, and has its vector.
    fn encode_with_heads(&self, inputs: Vec<EncodeInput>) -> BoxFuture<'static, Result<Encoded>> {
        let annotations = vec![Vec::new(); inputs.len()];
        let embeddings = self.encode(inputs.into_iter().map(|input| input.input_ids).collect());
        async move { Ok(Encoded { embeddings: embeddings.await?, annotations }) }.boxed()
    }
}

/// The backend as a session extension, so that a plan finds it where it runs and needs no handle of its own.
#[derive(Debug, Clone)]
pub struct BackendHandle(pub Arc<dyn Backend>);
