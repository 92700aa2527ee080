//! Training linear heads on a frozen model: text classifiers and entity taggers.

mod classifier;
mod spanned_texts;
mod tagger;
mod token_features;

pub use classifier::{ClassifierRequest, ClassifierSummary, EmbeddedRows};
pub use tagger::{Labelled, LeftOut, TaggedCorpus, TaggerRequest, TaggerSummary};

type Result<T, E = crate::EngineError> = std::result::Result<T, E>;
