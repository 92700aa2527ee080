//! A model folder of a few kilobytes, intact or with one fault.

use std::{collections::HashMap, fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

const HIDDEN: usize = 16;
const FFN: usize = 24;
const VOCABULARY: [&str; 16] =
    ["<s>", "<pad>", "</s>", "<unk>", "\u{2581}", "a", "b", "c", "d", "e", "i", "n", "o", "r", "s", "t"];

/// A `bert` model of one layer with a Unigram tokenizer of sixteen pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TinyModel {
    /// Without a fault.
    Whole,
    /// `tokenizer.json` is missing.
    WithoutTokenizer,
    /// The first layer's query matrix lacks a column.
    WrongShape,
    /// The weights end in the middle of a tensor.
    CutOff,
}

impl TinyModel {
    /// Writes the folder.
    pub fn write(self, folder: &Path) {
        fs::create_dir_all(folder).expect("a writable folder");
        let config = json!({
            "model_type": "bert", "vocab_size": VOCABULARY.len(), "hidden_size": HIDDEN, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": FFN, "max_position_embeddings": 64, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "pad_token_id": 1, "hidden_act": "gelu",
        });
        fs::write(folder.join("config.json"), config.to_string()).expect("a writable folder");
        if self != Self::WithoutTokenizer {
            fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).expect("a writable folder");
        }
        let mut weights = self.weights();
        if self == Self::CutOff {
            weights.truncate(weights.len() - 1000);
        }
        fs::write(folder.join("model.safetensors"), weights).expect("a writable folder");
    }

    fn weights(self) -> Vec<u8> {
        let query = if self == Self::WrongShape { [HIDDEN, HIDDEN - 1] } else { [HIDDEN, HIDDEN] };
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("embeddings.word_embeddings.weight".into(), vec![VOCABULARY.len(), HIDDEN]),
            ("embeddings.position_embeddings.weight".into(), vec![64, HIDDEN]),
            ("embeddings.token_type_embeddings.weight".into(), vec![2, HIDDEN]),
        ];
        let layer = "encoder.layer.0";
        let norms = [
            "embeddings.LayerNorm".into(),
            format!("{layer}.attention.output.LayerNorm"),
            format!("{layer}.output.LayerNorm"),
        ];
        shapes.extend(norms.iter().map(|norm: &String| (format!("{norm}.weight"), vec![HIDDEN])));
        let matrices = [
            ("attention.self.query", query),
            ("attention.self.key", [HIDDEN, HIDDEN]),
            ("attention.self.value", [HIDDEN, HIDDEN]),
            ("attention.output.dense", [HIDDEN, HIDDEN]),
            ("intermediate.dense", [FFN, HIDDEN]),
            ("output.dense", [HIDDEN, FFN]),
        ];
        shapes.extend(matrices.iter().map(|(name, shape)| (format!("{layer}.{name}.weight"), shape.to_vec())));
        let biases = matrices.iter().map(|(name, shape)| (format!("{layer}.{name}.bias"), vec![shape[0]]));
        shapes.extend(biases.chain(norms.iter().map(|norm| (format!("{norm}.bias"), vec![HIDDEN]))));

        let bytes: Vec<Vec<u8>> = shapes.iter().map(|(_, shape)| values(shape.iter().product())).collect();
        let views: HashMap<&str, TensorView<'_>> = shapes
            .iter()
            .zip(&bytes)
            .map(|((name, shape), bytes)| {
                (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a byte for each value"))
            })
            .collect();
        safetensors::serialize(views, None).expect("plain tensors")
    }
}

/// A fixed sequence of small numbers.
fn values(count: usize) -> Vec<u8> {
    (0..count).flat_map(|index| (((index * 37 % 101) as f32 - 50.0) / 200.0).to_le_bytes()).collect()
}

fn tokenizer() -> serde_json::Value {
    let special = |id: usize| {
        json!({"id": id, "content": VOCABULARY[id], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": null, "decoder": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
        "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": false,
            "vocab": VOCABULARY.iter().map(|piece| json!([piece, -1.0])).collect::<Vec<_>>()},
    })
}
