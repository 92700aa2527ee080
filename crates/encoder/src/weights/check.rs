//! The tensors that a configuration requires, compared with those in the files.

use std::{collections::HashSet, sync::Arc};

use super::{Stored, Weights};
use crate::{
    config::{ModelConfig, NormPlacement},
    error::{ModelError, Result},
};

/// A tensor that a model reads: its canonical name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

impl TensorSpec {
    /// A linear map's two tensors.
    pub(crate) fn linear(name: &str, outputs: usize, inputs: usize) -> [Self; 2] {
        [
            Self { name: format!("{name}.weight"), shape: vec![outputs, inputs] },
            Self { name: format!("{name}.bias"), shape: vec![outputs] },
        ]
    }

    /// A layer norm's two tensors.
    pub(crate) fn norm(name: &str, width: usize) -> [Self; 2] {
        ["weight", "bias"].map(|part| Self { name: format!("{name}.{part}"), shape: vec![width] })
    }
}

const TOKEN_TYPE_EMBEDDINGS: &str = "embeddings.token_type_embeddings.weight";

/// All tensors of the encoder, in the order of use.
pub(crate) fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let mut specs = Vec::new();
    let mut matrix = |name: &str, rows: usize, columns: usize| {
        specs.push(TensorSpec { name: format!("{name}.weight"), shape: vec![rows, columns] });
    };
    matrix("embeddings.word_embeddings", config.vocab_size, hidden);
    matrix("embeddings.position_embeddings", config.max_position_embeddings, hidden);
    matrix("embeddings.token_type_embeddings", config.type_vocab_size, hidden);
    let pre = config.kind.norm_placement() == NormPlacement::Pre;
    let norm = |specs: &mut Vec<TensorSpec>, name: &str| specs.extend(TensorSpec::norm(name, hidden));
    let linear = |specs: &mut Vec<TensorSpec>, name: String, rows: usize, columns: usize| {
        specs.extend(TensorSpec::linear(&name, rows, columns));
    };
    if !pre {
        norm(&mut specs, "embeddings.LayerNorm");
    }
    for layer in 0..config.num_hidden_layers {
        let layer = format!("encoder.layer.{layer}");
        let (before_attention, before_ffn, after_attention, after_ffn) = (
            format!("{layer}.attention.self_attn_layer_norm"),
            format!("{layer}.LayerNorm"),
            format!("{layer}.attention.output.LayerNorm"),
            format!("{layer}.output.LayerNorm"),
        );
        norm(&mut specs, if pre { &before_attention } else { &after_attention });
        for part in ["query", "key", "value"] {
            linear(&mut specs, format!("{layer}.attention.self.{part}"), hidden, hidden);
        }
        linear(&mut specs, format!("{layer}.attention.output.dense"), hidden, hidden);
        norm(&mut specs, if pre { &before_ffn } else { &after_ffn });
        linear(&mut specs, format!("{layer}.intermediate.dense"), wide, hidden);
        linear(&mut specs, format!("{layer}.output.dense"), hidden, wide);
    }
    if pre {
        norm(&mut specs, "encoder.LayerNorm");
    }
    specs
}

/// Weights that have every required tensor in the right shape.
#[derive(Debug)]
pub(crate) struct CheckedWeights {
    pub(crate) weights: Arc<Weights>,
    /// Numbers in the tensors that are read.
    pub(crate) parameters: u64,
    /// The format of the first layer's query weights: norms and biases are often kept in f32.
    pub(crate) stored: Stored,
    /// Tensors that are absent and taken as zero.
    pub(crate) missing: Vec<String>,
    /// Tensors in the files that are not read.
    pub(crate) unused: Vec<String>,
}

impl CheckedWeights {
    /// Compares the files with the required tensors.
    pub(crate) fn new(weights: Weights, specs: &[TensorSpec]) -> Result<Self> {
        let first_path = || weights.files.first().map(|file| file.path.clone()).unwrap_or_default();
        let absent: Vec<&TensorSpec> = specs.iter().filter(|spec| !weights.tensors.contains_key(&spec.name)).collect();
        let (optional, required): (Vec<_>, Vec<_>) =
            absent.into_iter().partition(|spec| spec.name == TOKEN_TYPE_EMBEDDINGS);
        if let Some(first) = required.first() {
            let (name, others) = (first.name.clone(), required.len() - 1);
            return Err(ModelError::MissingTensor { name, others, path: first_path() });
        }
        let mut parameters = 0;
        for spec in specs {
            let Some((file, entry)) = weights.tensors.get(&spec.name) else { continue };
            let path = || weights.files[*file].path.clone();
            if entry.shape != spec.shape {
                return Err(ModelError::WrongShape {
                    name: spec.name.clone(),
                    expected: spec.shape.clone(),
                    found: entry.shape.clone(),
                    path: path(),
                });
            }
            if let Stored::Other(format) = &entry.stored {
                return Err(ModelError::unsupported(
                    format!("format {format} of tensor {:?} in {}", spec.name, path().display()),
                    "expected f32, f16, bf16, q8_0 or q4_0",
                ));
            }
            // A row of the word embeddings is read alone, so blocks must not cross its end.
            if spec.shape.last().is_some_and(|width| entry.stored.bytes(*width).is_none()) {
                return Err(ModelError::damaged(path(), format!("blocks of tensor {:?} cross its rows", spec.name)));
            }
            parameters += spec.shape.iter().map(|size| *size as u64).product::<u64>();
        }
        let read: HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let unused = weights.tensors.keys().filter(|name| !read.contains(name.as_str())).cloned().collect();
        let query = "encoder.layer.0.attention.self.query.weight";
        let stored = weights.tensors.get(query).map_or(Stored::F32, |(_, entry)| entry.stored.clone());
        let missing = optional.into_iter().map(|spec| spec.name.clone()).collect();
        Ok(Self { weights: Arc::new(weights), parameters, stored, missing, unused })
    }
}
