//! What two models have in common when one pass serves both: the frozen encoder under their heads.

use super::ModelFiles;
use crate::{
    error::Result,
    weights::{CheckedWeights, Weights, tensors},
};

/// Bytes hashed before their pages are given up.
const STEP: usize = 64 << 20;

impl ModelFiles {
    /// BLAKE3 of the geometry and of every tensor of the encoder, hexadecimal: two models with the same one have the
    /// same hidden states, whatever heads they carry, however their tensors are prefixed and divided among files.
    /// Tensors in another number format are another backbone.
    ///
    /// A folder whose `config.json` says `"polylance": {"backbone": "…"}` answers that: its weights may be a copy in
    /// another format, or not be there at all.
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
            // A tensor that may be absent counts as such.
            let Some(view) = weights.read(&spec.name) else { continue };
            let head = format!("\n{} {} {:?}\n", spec.name, view.stored.name(), view.shape);
            hasher.update(head.as_bytes());
            for part in view.bytes.chunks(STEP) {
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
    fn heads_names_and_files_do_not_count() {
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
    fn numbers_format_and_geometry_count() {
        let expected = hash(&Checkpoint::new(ModelConfig::tiny()));
        let heads = ModelConfig { num_attention_heads: 2, ..ModelConfig::tiny() };
        assert_ne!(hash(&Checkpoint::new(heads)), expected);
        assert_ne!(hash(&Checkpoint::new(ModelConfig::tiny()).format(Format::Bf16)), expected);
    }

    #[test]
    fn a_fitted_head_says_what_it_stands_on() {
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
