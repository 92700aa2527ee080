//! Finds a model: built in, a folder, a GGUF file, or on the hub.

mod backbone;
mod download;
mod hashes;
mod hub;
mod needed;
mod sentence_transformers;
mod settings;
mod tokenizer_config;
mod tokenizer_settings;
mod weight_files;
mod write;

pub use self::{
    needed::{ANCHOR_FILES, is_path_inside, needed_files},
    tokenizer_settings::{TokenizerSettings, TruncationSide},
    write::HeadTensor,
};

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use polylance_schema::{Pooling, Prompts};
use serde::Serialize;

use self::{sentence_transformers::Modules, tokenizer_settings::TokenizerFiles, weight_files::weights};
use crate::{
    config::ModelConfig,
    error::{ModelError, Result},
    head_config::HeadConfig,
    weights::{Bytes, WeightFiles, read_gguf_header},
};

/// How a model turns token states into vectors by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EmbeddingDefaults {
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Whether vectors are normalized to length one.
    pub normalize: bool,
    /// Prefixes of documents and queries.
    pub prompts: Prompts,
    /// The largest number of tokens in one input, special tokens included.
    pub max_tokens: usize,
}

impl EmbeddingDefaults {
    /// The defaults of a plain encoder: the mean over all tokens, not normalized.
    fn plain(config: &ModelConfig) -> Self {
        let max_tokens = config.max_tokens();
        Self { pooling: Pooling::Mean, normalize: false, prompts: Prompts::default(), max_tokens }
    }
}

/// A model that was found and whose configuration was read. Its weights are not loaded.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    name: String,
    config: ModelConfig,
    head: HeadConfig,
    defaults: EmbeddingDefaults,
    weights: WeightFiles,
    tokenizer: TokenizerFile,
    tokenizer_settings: TokenizerSettings,
    /// The largest number of tokens in one input of a head.
    max_tokens: usize,
    unused_settings: Vec<String>,
    /// The hash of the weights, once it was computed.
    weights_hash: Arc<OnceLock<String>>,
}

#[derive(Debug, Clone)]
enum TokenizerFile {
    #[cfg(feature = "builtin")]
    Builtin,
    Path(PathBuf),
}

const BUILTIN_PREFIX: &str = "builtin:";

impl ModelFiles {
    /// Finds `builtin:multilingual-e5-small`, a folder, a `.gguf` file, or a model's name on the hub.
    ///
    /// The variables `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` configure the hub.
    ///
    /// # Errors
    /// When the model is not there, a file is missing, or its configuration cannot be used.
    pub fn find(model: &str) -> Result<Self> {
        if let Some(name) = model.strip_prefix(BUILTIN_PREFIX) {
            return Self::builtin(model, name);
        }
        let path = Path::new(model);
        if path.is_dir() || path.is_file() {
            return Self::at(model, path);
        }
        if hub::is_name(model) {
            let folder = hub::folder(model)?;
            return Self::folder(model, &folder);
        }
        let reason = "no such file or folder, and not a name of the hub such as intfloat/multilingual-e5-small";
        Err(ModelError::NotFound { model: model.to_owned(), reason: reason.to_owned() })
    }

    /// Reads the model in a folder or a `.gguf` file under the name of the place that it was fetched from.
    ///
    /// # Errors
    /// When a file is missing, or the model's configuration cannot be used.
    pub fn at(name: &str, path: &Path) -> Result<Self> {
        if path.is_dir() { Self::folder(name, path) } else { Self::gguf(name, path) }
    }

    #[cfg(not(feature = "builtin"))]
    fn builtin(model: &str, _: &str) -> Result<Self> {
        let reason = "this binary carries no model: it was built without the feature `builtin`".to_owned();
        Err(ModelError::NotFound { model: model.to_owned(), reason })
    }

    #[cfg(feature = "builtin")]
    fn builtin(model: &str, name: &str) -> Result<Self> {
        if name != polylance_builtin::MODEL {
            let reason = format!("the binary carries {BUILTIN_PREFIX}{}", polylance_builtin::MODEL);
            return Err(ModelError::NotFound { model: model.to_owned(), reason });
        }
        let bytes = polylance_builtin::model_gguf()
            .map_err(|error| ModelError::NotFound { model: model.to_owned(), reason: error.to_string() })?;
        let (config, defaults) = gguf(bytes, Path::new(model))?;
        let (weights, tokenizer) = (WeightFiles::Builtin(bytes), TokenizerFile::Builtin);
        let head = HeadConfig::absent(&config, Path::new(model));
        Ok(Self::plain(model, config, head, defaults, weights, tokenizer))
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
        Ok(Self::plain(model, config, head, defaults, weights, tokenizer))
    }

    /// A model without settings files.
    fn plain(
        model: &str,
        config: ModelConfig,
        head: HeadConfig,
        defaults: EmbeddingDefaults,
        weights: WeightFiles,
        tokenizer: TokenizerFile,
    ) -> Self {
        Self {
            name: model.to_owned(),
            max_tokens: config.max_tokens(),
            config,
            head,
            defaults,
            weights,
            tokenizer,
            tokenizer_settings: TokenizerSettings::default(),
            unused_settings: Vec::new(),
            weights_hash: Arc::default(),
        }
    }

    fn folder(model: &str, root: &Path) -> Result<Self> {
        refuse_adapter(root)?;
        let mut modules = Modules::read(root)?;
        let folder = &modules.transformer_folder();
        refuse_adapter(folder)?;
        let path = required(folder, "config.json")?;
        let json = fs::read(&path).map_err(ModelError::io(&path))?;
        let config = ModelConfig::from_json(&json, &path)?;
        let mut head = HeadConfig::from_json(&json, &config, &path)?;
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            let json = fs::read(&generation).map_err(ModelError::io(&generation))?;
            head = head.with_generation(&json, &generation)?;
        }
        let mut defaults = modules.defaults(EmbeddingDefaults::plain(&config))?;
        let head = head.with_activation(modules.activation.as_deref());
        let tokenizer = TokenizerFile::Path(required(folder, "tokenizer.json")?);
        let files = TokenizerFiles::read(folder, &modules.transformer()?)?;
        let at_most = |limit: Option<usize>| limit.unwrap_or(usize::MAX).min(config.max_tokens());
        defaults.max_tokens = at_most(files.sentence_limit);
        Ok(Self {
            max_tokens: at_most(files.limit),
            weights: weights(folder)?,
            tokenizer_settings: files.settings,
            unused_settings: modules.unused,
            ..Self::plain(model, config, head, defaults, WeightFiles::Safetensors(Vec::new()), tokenizer)
        })
    }

    /// The model as it was requested.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The head's part of its configuration.
    pub fn head_config(&self) -> &HeadConfig {
        &self.head
    }

    /// How it makes vectors by default.
    pub fn defaults(&self) -> &EmbeddingDefaults {
        &self.defaults
    }

    /// The largest number of tokens in one input of a head, special tokens included: the positions, or fewer where
    /// `tokenizer_config.json` has a `model_max_length`.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The settings of the tokenizer that are not in `tokenizer.json`.
    pub fn tokenizer_settings(&self) -> TokenizerSettings {
        self.tokenizer_settings
    }

    /// Keys of the folder's settings that neither this crate nor sentence-transformers reads.
    pub fn unused_settings(&self) -> &[String] {
        &self.unused_settings
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

    /// BLAKE3 of `tokenizer.json`, and of other settings of the tokenizer if they are not the defaults, hexadecimal.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tokenizer_hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let json = self.tokenizer_json()?;
        hasher.update(&json);
        let TokenizerSettings { compose, lowercase, truncation_side } = self.tokenizer_settings;
        if compose && tokenizer_settings::has_table(&json) {
            hasher.update(b"\ncompose");
        }
        if lowercase {
            hasher.update(b"\nlowercase");
        }
        if truncation_side == TruncationSide::Left {
            hasher.update(b"\ntruncation_side left");
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// The model with the tokenizer settings of a table, whose hash is `tokenizer_hash`. A table of an earlier version
    /// was made without composing decomposed texts, and keeps that: rows made in two ways must not be compared.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn as_in_table(mut self, tokenizer_hash: &str) -> Result<Self> {
        if self.tokenizer_hash()? != tokenizer_hash {
            let as_written = TokenizerSettings { compose: false, ..self.tokenizer_settings };
            let usual = std::mem::replace(&mut self.tokenizer_settings, as_written);
            if self.tokenizer_hash()? != tokenizer_hash {
                self.tokenizer_settings = usual;
            }
        }
        Ok(self)
    }
}

/// Configuration and defaults from GGUF metadata: llama.cpp's keys, and ours if present.
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

/// Refuses a folder with an adapter: without it the vectors would be those of another model.
fn refuse_adapter(folder: &Path) -> Result<()> {
    let names = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"];
    match names.into_iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        None => Ok(()),
        Some(path) => Err(ModelError::unsupported(
            format!("the PEFT adapter {}", path.display()),
            "merge it into its base model first (PeftModel.merge_and_unload), and save the result in a folder of its own",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Checkpoint;

    #[cfg(feature = "builtin")]
    #[test]
    fn builtin_model_has_its_defaults() {
        let files = ModelFiles::find("builtin:multilingual-e5-small").unwrap();
        let defaults = files.defaults();
        assert_eq!((defaults.pooling, defaults.normalize, defaults.max_tokens), (Pooling::Mean, true, 512));
        assert_eq!((defaults.prompts.query.as_str(), defaults.prompts.passage.as_str()), ("query: ", "passage: "));
        assert_eq!((files.config().hidden_size, files.config().num_hidden_layers), (384, 12));
        assert_eq!(files.weights_hash().unwrap().len(), 64);
    }

    #[test]
    fn missing_files_are_named() {
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
    fn shards_outside_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("model");
        fs::create_dir(&inner).unwrap();
        tiny(&inner);
        fs::rename(inner.join("model.safetensors"), folder.path().join("other.safetensors")).unwrap();
        let index = inner.join("model.safetensors.index.json");
        for outside in
            ["../other.safetensors".to_owned(), folder.path().join("other.safetensors").display().to_string()]
        {
            fs::write(&index, format!(r#"{{"weight_map": {{"a": {outside:?}}}}}"#)).unwrap();
            let error = find(&inner).unwrap_err().to_string();
            assert!(error.contains("is not in the model's folder") && error.contains(&outside), "{error}");
        }
    }

    /// A model of toy size in `folder`.
    fn tiny(folder: &Path) {
        Checkpoint::new(ModelConfig::tiny()).write(folder).unwrap();
        fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    }

    fn find(folder: &Path) -> Result<ModelFiles> {
        ModelFiles::find(folder.to_str().unwrap())
    }

    #[test]
    fn model_is_read_from_the_folder_in_modules_json() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("0_Transformer");
        fs::create_dir(&inner).unwrap();
        tiny(&inner);
        let modules = r#"[{"idx": 0, "name": "0", "path": "0_Transformer",
            "type": "sentence_transformers.models.Transformer"}]"#;
        fs::write(folder.path().join("modules.json"), modules).unwrap();
        fs::write(inner.join("sentence_bert_config.json"), r#"{"max_seq_length": 9, "do_lower_case": true}"#).unwrap();
        let files = find(folder.path()).unwrap();
        assert_eq!((files.defaults().max_tokens, files.max_tokens()), (9, 20));
        assert!(files.tokenizer_settings().lowercase);
        assert_eq!(files.tokenizer_json().unwrap(), b"{}");
        fs::remove_file(inner.join("config.json")).unwrap();
        let error = find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("0_Transformer") && error.contains("config.json"), "{error}");
    }

    #[test]
    fn adapter_is_refused_with_and_without_weights() {
        for name in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), "{}").unwrap();
            for alone in [true, false] {
                if !alone {
                    tiny(folder.path());
                }
                let error = find(folder.path()).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("merge_and_unload"), "{error}");
            }
        }
    }

    #[cfg(feature = "builtin")]
    #[test]
    fn table_of_an_earlier_version_keeps_decomposed_texts() {
        let find = || ModelFiles::find("builtin:multilingual-e5-small").unwrap();
        let earlier = blake3::hash(&polylance_builtin::tokenizer_json()).to_hex().to_string();
        let now = find().tokenizer_hash().unwrap();
        assert_ne!(now, earlier);
        let composes = |hash: &str| find().as_in_table(hash).unwrap().tokenizer_settings().compose;
        assert!(!composes(&earlier));
        assert!(composes(&now) && composes("another model's"));
        assert_eq!(find().as_in_table(&earlier).unwrap().tokenizer_hash().unwrap(), earlier);
    }

    #[test]
    fn tokenizer_limits_and_settings_are_read() {
        let folder = tempfile::tempdir().unwrap();
        tiny(folder.path());
        let usual = find(folder.path()).unwrap();
        assert_eq!((usual.defaults().max_tokens, usual.max_tokens()), (20, 20));
        fs::write(folder.path().join("tokenizer_config.json"), r#"{"model_max_length": 12}"#).unwrap();
        let limited = find(folder.path()).unwrap();
        assert_eq!((limited.defaults().max_tokens, limited.max_tokens()), (12, 12));
        assert_eq!(limited.tokenizer_hash().unwrap(), usual.tokenizer_hash().unwrap());
        fs::write(folder.path().join("tokenizer_config.json"), r#"{"truncation_side": "left"}"#).unwrap();
        let left = find(folder.path()).unwrap();
        assert_eq!(left.tokenizer_settings().truncation_side, TruncationSide::Left);
        assert_ne!(left.tokenizer_hash().unwrap(), usual.tokenizer_hash().unwrap());
    }

    #[test]
    fn weights_hash_does_not_depend_on_the_location() {
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
