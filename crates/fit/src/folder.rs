//! A fitted head as a folder in Hugging Face's layout.

use std::{collections::BTreeMap, path::Path};

use polylance_encoder::{FittedHead, HeadKind, HeadTensor, ModelFiles};
use serde_json::{Value, json};

use crate::{LinearHead, Result};

/// A classifier of texts: one linear map of the pooled vector.
///
/// transformers has no such class, so transformers cannot load the folder; `polylance annotate` and `predict` can.
#[derive(Debug, Clone)]
pub struct SequenceHead<'a> {
    /// The map.
    pub head: &'a LinearHead,
    /// The classes' names.
    pub labels: &'a [String],
    /// How the vector is made; the backbone's hash is filled in.
    pub fitted: FittedHead,
}

impl SequenceHead<'_> {
    /// Writes the head with a copy of the backbone: `config.json`, `model.safetensors`, `tokenizer.json`.
    ///
    /// # Errors
    /// When the backbone cannot be read or the folder cannot be written.
    pub fn write(&self, backbone: &ModelFiles, folder: &Path) -> Result<()> {
        let keys = json!({
            "architectures": ["PolylanceForSequenceClassification"],
            "problem_type": "single_label_classification",
        });
        write(backbone, folder, keys, self.head, self.labels, &self.fitted)
    }
}

/// A classifier of tokens: one linear map of each token's state, like transformers' `…ForTokenClassification`.
#[derive(Debug, Clone)]
pub struct TokenHead<'a> {
    /// The map.
    pub head: &'a LinearHead,
    /// The tags' names.
    pub labels: &'a [String],
    /// Text before every input.
    pub prefix: String,
}

impl TokenHead<'_> {
    /// Writes the head with a copy of the backbone; transformers loads the folder too.
    ///
    /// # Errors
    /// When the backbone cannot be read or the folder cannot be written.
    pub fn write(&self, backbone: &ModelFiles, folder: &Path) -> Result<()> {
        let architecture = HeadKind::TokenClassification.architecture(backbone.config().kind);
        let defaults = backbone.defaults();
        let fitted = FittedHead {
            head: None,
            pooling: defaults.pooling,
            normalize: defaults.normalize,
            prefix: self.prefix.clone(),
            backbone: None,
        };
        write(backbone, folder, json!({"architectures": [architecture]}), self.head, self.labels, &fitted)
    }
}

fn write(
    backbone: &ModelFiles,
    folder: &Path,
    mut keys: Value,
    head: &LinearHead,
    labels: &[String],
    fitted: &FittedHead,
) -> Result<()> {
    let fitted = FittedHead { backbone: Some(backbone.backbone_hash()?), ..fitted.clone() };
    let id2label: BTreeMap<String, &String> =
        labels.iter().enumerate().map(|(id, label)| (id.to_string(), label)).collect();
    let label2id: BTreeMap<&String, usize> = labels.iter().enumerate().map(|(id, label)| (label, id)).collect();
    keys["num_labels"] = json!(labels.len());
    keys["id2label"] = json!(id2label);
    keys["label2id"] = json!(label2id);
    keys["polylance"] = json!(fitted);
    let (classes, width) = (head.bias.len(), head.width());
    let tensors = [
        HeadTensor { name: "classifier.weight", shape: vec![classes, width], values: &head.weight },
        HeadTensor { name: "classifier.bias", shape: vec![classes], values: &head.bias },
    ];
    Ok(backbone.write_with_head(folder, &keys, &tensors)?)
}
