//! Model folders with a head: synthetic weights and the built-in tokenizer.

use std::{fs, path::Path};

use polylance_encoder::{HeadKind, ModelConfig, ModelKind, synthetic::Checkpoint};

/// Writes a small XLM-RoBERTa with the head of `task`, whose classes are `labels`.
pub fn write_head_model(folder: &Path, task: HeadKind, labels: &[&str]) {
    let config = ModelConfig {
        kind: ModelKind::XlmRoberta,
        vocab_size: 250_002,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 24,
        max_position_embeddings: 130,
        type_vocab_size: 1,
        layer_norm_eps: 1e-5,
        pad_token_id: 1,
    };
    let mut checkpoint = Checkpoint::new(config).head(task).head_scale(6.0);
    if !labels.is_empty() {
        checkpoint = checkpoint.labels(labels);
    }
    if task == HeadKind::CausalLm {
        checkpoint = checkpoint.key("is_decoder", true);
    }
    checkpoint.write(folder).expect("a writable folder");
    fs::write(folder.join("tokenizer.json"), polylance_builtin::tokenizer_json()).expect("a writable folder");
}
