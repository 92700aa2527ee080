//! The hash of a model's encoder without its heads: models with the same hash can share a pass.

use super::ModelFiles;
use crate::{
    error::Result,
    weights::{CheckedWeights, Weights, tensors},
};

/// Bytes that are hashed before their pages are released.
const HASH_CHUNK_BYTES: usize = 64 << 20;

impl ModelFiles {
    /// BLAKE3 of the geometry and of every tensor of the encoder, hexadecimal. Two models with the same hash have the
    /// same hidden states, whatever their heads, the prefixes of their tensors and the split into files. Tensors in
    /// another number format are another backbone.
    ///
    /// For a folder whose `config.json` has `"polylance": {"backbone": "…"}` that value is returned: its weights may be
    /// a copy in another format, or absent.
    ///
    /// # Errors
    /// When a file cannot be read, or the encoder is not in the weights.
    pub fn backbone_hash(&self) -> Result<String> {
        if let Some(hash) = self.head.fitted().and_then(|fitted| fitted.backbone.as_ref()) {
            return Ok(hash.clone());
        }
        let specs = tensors(&self.config);
        let weights = CheckedWeights::new(Weights::open(&self.weights)?, &specs)?.weights;
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config.to_json().to_string().as_bytes());
        for spec in &specs {
            // An optional tensor that is absent counts as absent.
            let Some(view) = weights.read(&spec.name) else { continue };
            let head = format!("\n{} {} {:?}\n", spec.name, view.stored.name(), view.shape);
            hasher.update(head.as_bytes());
            for part in view.bytes.chunks(HASH_CHUNK_BYTES) {
                hasher.update(part);
            }
            weights.release(&spec.name);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use polylance_schema::Pooling;

    use super::*;
    use crate::{
        config::ModelConfig,
        head_config::{FittedHead, FittedKind},
        head_kind::HeadKind,
        synthetic::{Checkpoint, Format, Names},
    };

    fn hash(checkpoint: &Checkpoint) -> String {
        let folder = tempfile::tempdir().unwrap();
        checkpoint.write(folder.path()).unwrap();
        fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        ModelFiles::find(folder.path().to_str().unwrap()).unwrap().backbone_hash().unwrap()
    }

    #[test]
    fn heads_names_and_files_do_not_change_the_hash() {
        let bare = Checkpoint::new(ModelConfig::tiny());
        let expected = hash(&bare);
        assert_eq!(expected.len(), 64);
        for same in [
            bare.clone().head(HeadKind::SequenceClassification),
            bare.clone().head(HeadKind::TokenClassification).labels(&["O", "B-A", "I-A"]).names(Names::Bare),
            bare.clone().shards(4_000),
        ] {
            assert_eq!(hash(&same), expected, "{same:?}");
        }
    }

    #[test]
    fn numbers_format_and_geometry_change_the_hash() {
        let expected = hash(&Checkpoint::new(ModelConfig::tiny()));
        let heads = ModelConfig { num_attention_heads: 2, ..ModelConfig::tiny() };
        assert_ne!(hash(&Checkpoint::new(heads)), expected);
        assert_ne!(hash(&Checkpoint::new(ModelConfig::tiny()).format(Format::Bf16)), expected);
    }

    #[test]
    fn fitted_head_names_its_backbone() {
        let fitted = FittedHead {
            head: Some(FittedKind::PooledLinear),
            pooling: Pooling::Mean,
            normalize: false,
            prefix: String::new(),
            backbone: Some("7c1e".to_owned()),
        };
        let head = Checkpoint::new(ModelConfig::tiny()).head(HeadKind::SequenceClassification).fitted(&fitted);
        assert_eq!(hash(&head), "7c1e");
    }
}
