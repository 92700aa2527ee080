//! The contracts of the fake device's vectors and of the fake head's values.

use polylance_schema::{Chunking, Contract, HeadContract, HeadInputs, Pooling, Prompts, TaskSpec};

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

/// The contract of the values that the fake head computes for this task.
pub fn fake_head_contract(spec: TaskSpec) -> HeadContract {
    HeadContract {
        model: "fake".into(),
        weights_hash: "0".into(),
        tokenizer_hash: "0".into(),
        spec,
        labels: vec!["NAME".into()],
        prefix: String::new(),
        inputs: HeadInputs::default(),
        dtype: "f32".into(),
    }
}
