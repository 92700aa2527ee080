//! sentence-transformers folders: the model's folder, pooling, normalization, prompts and length limit.
//!
//! Source: `modules.json`, `N_Pooling/config.json`, `config_sentence_transformers.json` and
//! `sentence_bert_config.json` as sentence-transformers 6.2 writes and reads them.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use polylance_schema::Pooling;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    EmbeddingDefaults,
    settings::{self, Settings},
};
use crate::error::{ModelError, Result};

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Module {
    /// The class without its package, which differs between versions of sentence-transformers.
    fn class(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, clippy::struct_field_names, reason = "the file has one flag a mode")]
struct PoolingConfig {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ModelSettings {
    prompts: Option<HashMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
    activation_fn: Option<String>,
}

/// `sentence_bert_config.json`, including the keys of its newer versions.
#[derive(Deserialize, Default)]
#[serde(default)]
struct TransformerFile {
    max_seq_length: Option<usize>,
    do_lower_case: Option<bool>,
    #[serde(alias = "processor_kwargs")]
    tokenizer_args: Option<TokenizerArgs>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct TokenizerArgs {
    model_max_length: Option<Value>,
    truncation_side: Option<String>,
}

/// The tokenizer settings of `sentence_bert_config.json`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TransformerSettings {
    pub(super) max_seq_length: Option<usize>,
    pub(super) lowercase: bool,
    /// Overrides the same setting of `tokenizer_config.json`.
    pub(super) model_max_length: Option<Value>,
    pub(super) truncation_side: Option<String>,
}

/// Names of the Transformer module's file, in the order of precedence.
pub(super) const TRANSFORMER_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// A folder with or without `modules.json`.
pub(super) struct Modules {
    folder: PathBuf,
    /// In the order of `modules.json`.
    listed: Option<Vec<Module>>,
    /// A cross-encoder's activation, a class of torch.
    pub(super) activation: Option<String>,
    /// Keys that are not read and change no vector.
    pub(super) unused: Vec<String>,
}

impl Modules {
    /// Reads `modules.json`, if it exists.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("modules.json");
        let modules = json::<Vec<Module>>(&path)?;
        for module in modules.iter().flatten() {
            inside(&module.path).ok_or_else(|| {
                ModelError::unsupported(
                    format!("path {:?} in {}", module.path, path.display()),
                    "expected a folder inside the model's",
                )
            })?;
        }
        Ok(Self { folder: folder.to_owned(), listed: modules, activation: None, unused: Vec::new() })
    }

    /// The folder with `config.json`, the weights and the tokenizer.
    pub(super) fn transformer_folder(&self) -> PathBuf {
        let transformer = self.listed.iter().flatten().find(|module| module.class() == "Transformer");
        transformer.map_or_else(|| self.folder.clone(), |module| join(&self.folder, &module.path))
    }

    /// The tokenizer settings of the Transformer module.
    pub(super) fn transformer(&mut self) -> Result<TransformerSettings> {
        if self.listed.is_none() {
            return Ok(TransformerSettings::default());
        }
        let folder = self.transformer_folder();
        let path = TRANSFORMER_FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let Some(path) = path else { return Ok(TransformerSettings::default()) };
        let file: TransformerFile = self.settings(&path, &settings::TRANSFORMER_SETTINGS)?.unwrap_or_default();
        let args = file.tokenizer_args.unwrap_or_default();
        Ok(TransformerSettings {
            max_seq_length: file.max_seq_length,
            lowercase: file.do_lower_case == Some(true),
            model_max_length: args.model_max_length,
            truncation_side: args.truncation_side,
        })
    }

    /// The defaults of the folder; `plain` if it has no `modules.json`.
    pub(super) fn defaults(&mut self, plain: EmbeddingDefaults) -> Result<EmbeddingDefaults> {
        let Some(modules) = self.listed.take() else { return Ok(plain) };
        let mut defaults = EmbeddingDefaults { normalize: false, ..plain };
        for (number, module) in modules.iter().enumerate() {
            let folder = join(&self.folder, &module.path);
            match module.class() {
                "Transformer" if number == 0 => {}
                "Pooling" => defaults.pooling = self.pooling(&folder.join("config.json"))?,
                "Normalize" => {
                    // Older versions write no file.
                    self.settings::<Value>(&folder.join("config.json"), &settings::NORMALIZE_SETTINGS)?;
                    defaults.normalize = true;
                }
                other => {
                    return Err(ModelError::unsupported(
                        format!("module {other} in {}", self.folder.join("modules.json").display()),
                        "expected Transformer, Pooling and Normalize",
                    ));
                }
            }
        }
        self.listed = Some(modules);
        let path = self.folder.join("config_sentence_transformers.json");
        let file: ModelSettings = self.settings(&path, &settings::MODEL_SETTINGS)?.unwrap_or_default();
        self.activation = file.activation_fn;
        let prompts = file.prompts.unwrap_or_default();
        // `encode_query` and `encode_document` use the prompt of this name if they have none.
        let default = match &file.default_prompt_name {
            None => None,
            Some(name) => Some(prompts.get(name).cloned().flatten().ok_or_else(|| {
                ModelError::config(&path, format!("default_prompt_name is {name:?}, which is not in prompts"))
            })?),
        };
        let prompt = |names: &[&str]| {
            names.iter().find_map(|name| prompts.get(*name)?.clone()).or_else(|| default.clone()).unwrap_or_default()
        };
        defaults.prompts.query = prompt(&["query", "s2p_query"]);
        defaults.prompts.passage = prompt(&["document", "passage", "corpus"]);
        Ok(defaults)
    }

    fn pooling(&mut self, path: &Path) -> Result<Pooling> {
        let Some(config) = self.settings::<PoolingConfig>(path, &settings::POOLING_SETTINGS)? else {
            let folder = path.parent().unwrap_or(path).to_owned();
            return Err(ModelError::MissingFile {
                folder,
                missing: "config.json, which modules.json names".to_owned(),
            });
        };
        let flags = [
            (config.pooling_mode_cls_token, Pooling::Cls, "cls"),
            (config.pooling_mode_mean_tokens, Pooling::Mean, "mean"),
            (config.pooling_mode_max_tokens, Pooling::Max, "max"),
            (config.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLen, "mean_sqrt_len_tokens"),
            (config.pooling_mode_weightedmean_tokens, Pooling::WeightedMean, "weightedmean"),
            (config.pooling_mode_lasttoken, Pooling::LastToken, "lasttoken"),
        ];
        let named = config.pooling_mode.as_deref();
        let set: Vec<Pooling> = flags
            .iter()
            .filter(|(flag, _, name)| named.map_or(*flag, |named| named == *name))
            .map(|(_, pooling, _)| *pooling)
            .collect();
        match set[..] {
            [one] => Ok(one),
            [] if named.is_none() => Ok(Pooling::Mean),
            _ => Err(ModelError::unsupported(
                format!("pooling {} in {}", named.unwrap_or("by several modes"), path.display()),
                "expected one of cls, mean, max, mean_sqrt_len_tokens, weightedmean, lasttoken",
            )),
        }
    }

    /// A file whose keys are all known, parsed; `None` if it does not exist.
    fn settings<T: DeserializeOwned>(&mut self, path: &Path, settings: &Settings) -> Result<Option<T>> {
        let Some(keys) = json::<Map<String, Value>>(path)? else { return Ok(None) };
        self.unused.extend(settings.check(&keys, path)?);
        serde_json::from_value(Value::Object(keys))
            .map(Some)
            .map_err(|error| ModelError::config(path, error.to_string()))
    }
}

/// `path`, if it is a folder inside the model's.
pub(super) fn inside(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)).then_some(path)
}

fn join(folder: &Path, path: &str) -> PathBuf {
    // An empty path would end the folder's name with a slash.
    if path.is_empty() { folder.to_owned() } else { folder.join(path) }
}

/// A JSON file; `None` if it does not exist.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(ModelError::io(path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| ModelError::config(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    const PROMPTS: &str = r#"{"prompts": {"query": "q: ", "document": "d: "}}"#;

    fn folder(pooling: &str, modules: &str, model: &str) -> Result<(EmbeddingDefaults, TransformerSettings)> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("modules.json", modules);
        write("1_Pooling/config.json", pooling);
        write("sentence_bert_config.json", r#"{"max_seq_length": 12, "do_lower_case": true}"#);
        write("config_sentence_transformers.json", model);
        let mut modules = Modules::read(folder.path())?;
        Ok((modules.defaults(EmbeddingDefaults::plain(&ModelConfig::tiny()))?, modules.transformer()?))
    }

    const MODULES: &str = r#"[
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;

    #[test]
    fn both_pooling_formats_are_read() {
        for (pooling, expected) in [
            (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#, Pooling::Cls),
            (r#"{"pooling_mode_mean_sqrt_len_tokens": true}"#, Pooling::MeanSqrtLen),
            (r#"{"pooling_mode": "lasttoken", "embedding_dimension": 3}"#, Pooling::LastToken),
            ("{}", Pooling::Mean),
        ] {
            let (defaults, transformer) = folder(pooling, MODULES, PROMPTS).unwrap();
            assert_eq!(defaults.pooling, expected);
            assert!(defaults.normalize && transformer.lowercase);
            assert_eq!(transformer.max_seq_length, Some(12));
            assert_eq!((defaults.prompts.query.as_str(), defaults.prompts.passage.as_str()), ("q: ", "d: "));
        }
    }

    #[test]
    fn default_prompt_is_used_without_a_specific_one() {
        let prompts = |model: &str| folder("{}", MODULES, model).map(|(defaults, _)| defaults.prompts);
        let default = prompts(r#"{"prompts": {"query": "q: ", "sts": "s: "}, "default_prompt_name": "sts"}"#).unwrap();
        assert_eq!((default.query.as_str(), default.passage.as_str()), ("q: ", "s: "));
        let corpus = prompts(r#"{"prompts": {"corpus": "c: "}, "default_prompt_name": null}"#).unwrap();
        assert_eq!((corpus.query.as_str(), corpus.passage.as_str()), ("", "c: "));
        let error = prompts(r#"{"prompts": {}, "default_prompt_name": "sts"}"#).unwrap_err().to_string();
        assert!(error.contains("default_prompt_name is \"sts\", which is not in prompts"), "{error}");
    }

    #[test]
    fn missing_pooling_file_is_an_error() {
        let elsewhere = MODULES.replace("1_Pooling", "3_Pooling");
        assert!(folder("{}", &elsewhere, "{}").unwrap_err().to_string().contains("modules.json"));
    }

    #[test]
    fn path_outside_the_folder_is_refused() {
        for path in ["../1_Pooling", "/1_Pooling"] {
            let error = folder("{}", &MODULES.replace("1_Pooling", path), "{}").unwrap_err().to_string();
            assert!(error.contains(&format!("path {path:?}")), "{error}");
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        let refused = |pooling: &str, modules: &str| folder(pooling, modules, "{}").unwrap_err().to_string();
        let dense = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Dense"}]"#;
        assert!(refused("{}", dense).contains("module Dense"));
        let two = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#;
        assert!(refused(two, MODULES).contains("several modes"));
        assert!(refused(r#"{"pooling_mode": "median"}"#, MODULES).contains("median"));
        assert!(refused(r#"{"include_prompt": false}"#, MODULES).contains("include_prompt false"));
        let twice = MODULES.replace("Pooling\"}", "Transformer\"}");
        assert!(refused("{}", &twice).contains("module Transformer"));
    }
}
