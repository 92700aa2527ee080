//! The contract between operators and devices.
//!
//! Operators hold texts and rows of tokens, devices turn them into chunks and vectors. Neither knows the other's library: no
//! candle here, no DataFusion. The device pool and the fake device both implement [`Backend`], and
//! `polylance_testkit::conformance` checks its laws.

mod annotate;
mod backend;
mod error;
mod load;

pub use annotate::{
    AnnotateInput, Annotated, Annotation, Annotator, AnnotatorHandle, Answer, LabelScore, Span, TokenScore,
};
pub use backend::{Backend, BackendHandle, BackendInfo, Chunk, Embeddings, EncodeInput, Encoded, TokenizeSpec};
pub use error::{BackendError, Result};
pub use load::Load;
