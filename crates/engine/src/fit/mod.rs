//! Fitting heads: a classifier of texts, or a tagger of entities, on a model as it is.

mod classifier;
mod spans;
mod tagger;
mod token_features;

pub use classifier::{ClassifierRequest, ClassifierSummary, EmbeddedRows};
pub use tagger::{Labelled, LeftOut, TaggedCorpus, TaggerRequest, TaggerSummary};

type Result<T, E = crate::EngineError> = std::result::Result<T, E>;
