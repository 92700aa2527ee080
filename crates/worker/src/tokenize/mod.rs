//! From documents to chunks: the tokenizer, its threads, and the chunker.

mod charsmap;
mod chunker;
mod normalizer;
mod pool;

pub(crate) use normalizer::Tokenizer;
pub(crate) use pool::{TextThreads, TokenizerPool, catch_panic, read_tokenizer};
