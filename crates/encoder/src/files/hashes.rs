//! The hash of a model's weights.

use std::path::Path;

use super::ModelFiles;
use crate::{
    error::Result,
    weights::{Bytes, WeightFiles},
};

impl ModelFiles {
    /// BLAKE3 of the geometry and of the weight files, one after another, hexadecimal. It does not depend on their
    /// location. The geometry is part of it because the same weights with another number of heads give other vectors.
    /// The files are read once.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn weights_hash(&self) -> Result<String> {
        if let Some(hash) = self.weights_hash.get() {
            return Ok(hash.clone());
        }
        let hash = self.hash_weights()?;
        Ok(self.weights_hash.get_or_init(|| hash).clone())
    }

    fn hash_weights(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config.to_json().to_string().as_bytes());
        match &self.weights {
            #[cfg(feature = "builtin")]
            WeightFiles::Builtin(bytes) => {
                hasher.update(bytes);
            }
            WeightFiles::Gguf(path) => hash_file(&mut hasher, path)?,
            WeightFiles::Safetensors(paths) | WeightFiles::Pytorch(paths) => {
                for path in paths {
                    hash_file(&mut hasher, path)?;
                }
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

fn hash_file(hasher: &mut blake3::Hasher, path: &Path) -> Result<()> {
    const HASH_CHUNK_BYTES: usize = 64 << 20;
    let bytes = Bytes::map(path)?;
    for (number, part) in bytes.as_slice().chunks(HASH_CHUNK_BYTES).enumerate() {
        let range = number * HASH_CHUNK_BYTES..number * HASH_CHUNK_BYTES + part.len();
        bytes.prefetch(&range);
        hasher.update(part);
        bytes.release(&range);
    }
    Ok(())
}
