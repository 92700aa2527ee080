//! A fitted head as a folder in Hugging Face's layout.

use std::{collections::BTreeMap, path::Path};

use polylance_encoder::{FittedHead, HeadTensor, ModelFiles};
use serde_json::json;

use crate::{LinearHead, Result};

/// A classifier of texts: one linear map of the pooled vector.
///
/// transformers has no class for it, so it names none; `polylance annotate` and `predict` read it.
#[derive(Debug, Clone)]
pub struct SequenceHead<'a> {
    /// The map.
    pub head: &'a LinearHead,
    /// The classes' names.
    pub labels: &'a [String],
    /// How the vector was made; the backbone's hash is filled in.
    pub fitted: FittedHead,
}

impl SequenceHead<'_> {
    /// Writes the head with a copy of the backbone: `config.json`, `model.safetensors`, `tokenizer.json`.
    ///
    /// # Errors
    /// When the backbone cannot be read or the folder cannot be written.
    pub fn write(&self, backbone: &ModelFiles, folder: &Path) -> Result<()> {
        let fitted = FittedHead { backbone: Some(backbone.backbone_hash()?), ..self.fitted.clone() };
        let id2label: BTreeMap<String, &String> =
            self.labels.iter().enumerate().map(|(id, label)| (id.to_string(), label)).collect();
        let label2id: BTreeMap<&String, usize> =
            self.labels.iter().enumerate().map(|(id, label)| (label, id)).collect();
        let keys = json!({
            "architectures": ["PolylanceForSequenceClassification"],
            "problem_type": "single_label_classification",
            "num_labels": self.labels.len(),
            "id2label": id2label,
            "label2id": label2id,
            "polylance": fitted,
        });
        let (classes, width) = (self.head.bias.len(), self.head.width());
        let tensors = [
            HeadTensor { name: "classifier.weight", shape: vec![classes, width], values: &self.head.weight },
            HeadTensor { name: "classifier.bias", shape: vec![classes], values: &self.head.bias },
        ];
        Ok(backbone.write_with_head(folder, &keys, &tensors)?)
    }
}
