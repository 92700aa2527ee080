//! The contract of the fake device's vectors.

use polylance_schema::{Chunking, Contract, Pooling, Prompts};

/// The contract of the fake device's vectors.
pub fn fake_contract(dim: usize, chunking: Chunking) -> Contract {
    Contract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        pooling: Pooling::Mean,
        normalize: false,
        prompts: Prompts::default(),
        chunking,
        dtype: "f32".into(),
        dim,
    }
}
