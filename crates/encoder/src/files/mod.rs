//! Finds a model: built in, a folder, a GGUF file, or on the hub.

mod backbone;
mod hub;
mod sentence_transformers;
mod tokenizer_config;
mod write;

pub use self::write::HeadTensor;

use std::{
    fs,
    path::{Path, PathBuf},
};

use polylance_schema::{Pooling, Prompts};
use serde::{Deserialize, Serialize};

use crate::{
    config::ModelConfig,
    error::{ModelError, Result},
    head_config::HeadConfig,
    weights::{Bytes, WeightFiles, read_gguf_header},
};

/// How a model turns token states into vectors, unless a caller says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EmbeddingDefaults {
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Whether vectors get length one.
    pub normalize: bool,
    /// Texts before documents and queries.
    pub prompts: Prompts,
    /// Ids in one input at most, special tokens included.
    pub max_tokens: usize,
}

impl EmbeddingDefaults {
    /// A plain encoder's: the mean over all tokens, as it is.
    fn plain(config: &ModelConfig) -> Self {
        let max_tokens = config.max_tokens();
        Self { pooling: Pooling::Mean, normalize: false, prompts: Prompts::default(), max_tokens }
    }
}

/// A model that was found and whose configuration was read; nothing is loaded yet.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    name: String,
    config: ModelConfig,
    head: HeadConfig,
    defaults: EmbeddingDefaults,
    weights: WeightFiles,
    tokenizer: TokenizerFile,
}

#[derive(Debug, Clone)]
enum TokenizerFile {
    #[cfg(feature = "builtin")]
    Builtin,
    Path(PathBuf),
}

const BUILTIN: &str = "builtin:";

impl ModelFiles {
    /// Finds `builtin:multilingual-e5-small`, a folder, a `.gguf` file, or a model's name on the hub.
    ///
    /// The hub is asked as `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` say.
    ///
    /// # Errors
    /// When the model is not there, a file is missing, or its configuration cannot be used.
    pub fn find(model: &str) -> Result<Self> {
        if let Some(name) = model.strip_prefix(BUILTIN) {
            return Self::builtin(model, name);
        }
        let path = Path::new(model);
        if path.is_dir() {
            return Self::folder(model, path);
        }
        if path.is_file() {
            return Self::gguf(model, path);
        }
        if hub::is_name(model) {
            let folder = hub::folder(model)?;
            return Self::folder(model, &folder);
        }
        let reason = "no such file or folder, and not a name of the hub such as intfloat/multilingual-e5-small";
        Err(ModelError::NotFound { model: model.to_owned(), reason: reason.to_owned() })
    }

    #[cfg(not(feature = "builtin"))]
    fn builtin(model: &str, _: &str) -> Result<Self> {
        let reason = "this binary carries no model: it was built without the feature `builtin`".to_owned();
        Err(ModelError::NotFound { model: model.to_owned(), reason })
    }

    #[cfg(feature = "builtin")]
    fn builtin(model: &str, name: &str) -> Result<Self> {
        if name != polylance_builtin::MODEL {
            let reason = format!("the binary carries {BUILTIN}{}", polylance_builtin::MODEL);
            return Err(ModelError::NotFound { model: model.to_owned(), reason });
        }
        let bytes = polylance_builtin::model_gguf();
        let (config, defaults) = gguf(bytes, Path::new(model))?;
        let (weights, tokenizer) = (WeightFiles::Builtin(bytes), TokenizerFile::Builtin);
        let head = HeadConfig::absent(&config, Path::new(model));
        Ok(Self { name: model.to_owned(), config, head, defaults, weights, tokenizer })
    }

    fn gguf(model: &str, path: &Path) -> Result<Self> {
        if path.extension().is_none_or(|extension| extension != "gguf") {
            let reason = "a single file must be a .gguf file; for safetensors name the folder".to_owned();
            return Err(ModelError::NotFound { model: model.to_owned(), reason });
        }
        let bytes = Bytes::map(path)?;
        let (config, defaults) = gguf(bytes.as_slice(), path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let tokenizer = TokenizerFile::Path(required(folder, "tokenizer.json")?);
        let (head, weights) = (HeadConfig::absent(&config, path), WeightFiles::Gguf(path.to_owned()));
        Ok(Self { name: model.to_owned(), config, head, defaults, weights, tokenizer })
    }

    fn folder(model: &str, folder: &Path) -> Result<Self> {
        let path = required(folder, "config.json")?;
        let json = fs::read(&path).map_err(ModelError::io(&path))?;
        let config = ModelConfig::from_json(&json, &path)?;
        let mut head = HeadConfig::from_json(&json, &config, &path)?;
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            let json = fs::read(&generation).map_err(ModelError::io(&generation))?;
            head = head.with_generation(&json, &generation)?;
        }
        let defaults = sentence_transformers::read(folder, EmbeddingDefaults::plain(&config))?;
        let tokenizer = TokenizerFile::Path(required(folder, "tokenizer.json")?);
        Ok(Self { name: model.to_owned(), config, head, defaults, weights: weights(folder)?, tokenizer })
    }

    /// The model as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What its configuration says of a head.
    pub fn head_config(&self) -> &HeadConfig {
        &self.head
    }

    /// How it makes vectors unless a caller says otherwise.
    pub fn defaults(&self) -> &EmbeddingDefaults {
        &self.defaults
    }

    pub(crate) fn weights(&self) -> &WeightFiles {
        &self.weights
    }

    /// The bytes of `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tokenizer_json(&self) -> Result<Vec<u8>> {
        match &self.tokenizer {
            #[cfg(feature = "builtin")]
            TokenizerFile::Builtin => Ok(polylance_builtin::tokenizer_json()),
            TokenizerFile::Path(path) => fs::read(path).map_err(ModelError::io(path)),
        }
    }

    /// BLAKE3 of `tokenizer.json`, hexadecimal.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tokenizer_hash(&self) -> Result<String> {
        Ok(blake3::hash(&self.tokenizer_json()?).to_hex().to_string())
    }

    /// BLAKE3 of the geometry and of the weight files, one after another, hexadecimal. It does not depend on where they
    /// are. The geometry counts because the same weights with another number of heads give other vectors.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn weights_hash(&self) -> Result<String> {
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
    const STEP: usize = 64 << 20;
    let bytes = Bytes::map(path)?;
    for (number, part) in bytes.as_slice().chunks(STEP).enumerate() {
        let range = number * STEP..number * STEP + part.len();
        bytes.prefetch(&range);
        hasher.update(part);
        bytes.release(&range);
    }
    Ok(())
}

/// Configuration and defaults from GGUF metadata: llama.cpp's keys, and ours where they are.
fn gguf(bytes: &[u8], path: &Path) -> Result<(ModelConfig, EmbeddingDefaults)> {
    let content = read_gguf_header(bytes, path)?;
    let config = ModelConfig::from_gguf(&content, path)?;
    let text =
        |key: &str| content.metadata.get(key).and_then(|value| value.to_string().ok()).cloned().unwrap_or_default();
    let mut defaults = EmbeddingDefaults::plain(&config);
    // llama.cpp's `LLAMA_POOLING_TYPE_*`.
    defaults.pooling = match content.metadata.get("bert.pooling_type").and_then(|value| value.to_u32().ok()) {
        Some(2) => Pooling::Cls,
        Some(3) => Pooling::LastToken,
        _ => Pooling::Mean,
    };
    defaults.normalize =
        content.metadata.get("polylance.normalize").and_then(|value| value.to_bool().ok()).unwrap_or(false);
    defaults.prompts = Prompts { passage: text("polylance.prompt.passage"), query: text("polylance.prompt.query") };
    Ok((config, defaults))
}

fn required(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(ModelError::MissingFile { folder: folder.to_owned(), missing: name.to_owned() })
}

/// The weights of a folder, whole or in shards; safetensors before PyTorch.
fn weights(folder: &Path) -> Result<WeightFiles> {
    let single = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    if let Some(path) = single("model.safetensors") {
        return Ok(WeightFiles::Safetensors(vec![path]));
    }
    if let Some(index) = single("model.safetensors.index.json") {
        return Ok(WeightFiles::Safetensors(shards(folder, &index)?));
    }
    if let Some(path) = single("pytorch_model.bin") {
        return Ok(WeightFiles::Pytorch(vec![path]));
    }
    if let Some(index) = single("pytorch_model.bin.index.json") {
        return Ok(WeightFiles::Pytorch(shards(folder, &index)?));
    }
    Err(ModelError::MissingFile {
        folder: folder.to_owned(),
        missing: "model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json"
            .to_owned(),
    })
}

/// The files that an index names, sorted.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let json = fs::read(index).map_err(ModelError::io(index))?;
    let parsed: Index = serde_json::from_slice(&json).map_err(|error| ModelError::config(index, error.to_string()))?;
    let mut names: Vec<&String> = parsed.weight_map.values().collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| required(folder, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Checkpoint;

    #[cfg(feature = "builtin")]
    #[test]
    fn the_builtin_model_says_how_it_is_used() {
        let files = ModelFiles::find("builtin:multilingual-e5-small").unwrap();
        let defaults = files.defaults();
        assert_eq!((defaults.pooling, defaults.normalize, defaults.max_tokens), (Pooling::Mean, true, 512));
        assert_eq!((defaults.prompts.query.as_str(), defaults.prompts.passage.as_str()), ("query: ", "passage: "));
        assert_eq!((files.config().hidden_size, files.config().num_hidden_layers), (384, 12));
        assert_eq!(files.weights_hash().unwrap().len(), 64);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().to_str().unwrap();
        let missing = |expected: &str| {
            let error = ModelFiles::find(model).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        missing("config.json");
        Checkpoint::new(ModelConfig::tiny()).write(folder.path()).unwrap();
        missing("tokenizer.json");
        fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        assert!(ModelFiles::find(model).is_ok());
        fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        missing("model.safetensors");
        assert!(matches!(ModelFiles::find("./nothing"), Err(ModelError::NotFound { .. })));
        assert!(matches!(ModelFiles::find("builtin:other"), Err(ModelError::NotFound { .. })));
    }

    #[test]
    fn the_weights_hash_does_not_depend_on_the_place() {
        let hashes: Vec<String> = (0..2)
            .map(|_| {
                let folder = tempfile::tempdir().unwrap();
                Checkpoint::new(ModelConfig::tiny()).write(folder.path()).unwrap();
                fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
                ModelFiles::find(folder.path().to_str().unwrap()).unwrap().weights_hash().unwrap()
            })
            .collect();
        assert_eq!(hashes[0], hashes[1]);
    }
}
