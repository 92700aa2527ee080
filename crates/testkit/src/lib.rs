//! For tests only: a fake device, what every backend must fulfil, and corpora.

mod annotator;
pub mod conformance;
mod corpora;
mod fake;

pub use annotator::FakeAnnotator;
pub use corpora::{CorpusFormat, SCRIPTS, long_document, write_synthetic, write_synthetic_parquet};
pub use fake::FakeBackend;
