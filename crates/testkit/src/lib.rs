//! For tests only: a fake device, the laws of backends, corpora, and columns of answers.

mod annotator;
mod columns;
pub mod conformance;
mod corpora;
mod fake;
mod fake_contract;
mod pace;
mod refused;

pub use annotator::FakeAnnotator;
pub use columns::{classes, spans};
pub use corpora::{CorpusFormat, SCRIPTS, long_document, write_synthetic, write_synthetic_parquet};
pub use fake::FakeBackend;
pub use fake_contract::{fake_contract, fake_head_contract};
