//! sentence-transformers folders: pooling, normalization, prompts and length limit.
//!
//! Source: `modules.json`, `N_Pooling/config.json`, `config_sentence_transformers.json` and
//! `sentence_bert_config.json` as sentence-transformers 6.2 writes and reads them.

use std::{collections::HashMap, fs, path::Path};

use polylance_schema::Pooling;
use serde::{Deserialize, de::DeserializeOwned};

use super::EmbeddingDefaults;
use crate::error::{ModelError, Result};

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the file has one flag a mode")]
struct PoolingConfig {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
    include_prompt: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ModelSettings {
    prompts: HashMap<String, Option<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TransformerSettings {
    max_seq_length: Option<usize>,
}

/// The defaults of a folder; those given, when it has no `modules.json`.
pub(super) fn read(folder: &Path, plain: EmbeddingDefaults) -> Result<EmbeddingDefaults> {
    let Some(modules) = json::<Vec<Module>>(&folder.join("modules.json"))? else { return Ok(plain) };
    let mut defaults = EmbeddingDefaults { normalize: false, ..plain };
    for module in modules {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {
                let settings =
                    json::<TransformerSettings>(&folder.join(&module.path).join("sentence_bert_config.json"))?;
                if let Some(limit) = settings.unwrap_or_default().max_seq_length {
                    defaults.max_tokens = defaults.max_tokens.min(limit);
                }
            }
            "Pooling" => defaults.pooling = pooling(&folder.join(&module.path).join("config.json"))?,
            "Normalize" => defaults.normalize = true,
            other => {
                return Err(ModelError::unsupported(
                    format!("module {other} in {}", folder.join("modules.json").display()),
                    "expected Transformer, Pooling and Normalize",
                ));
            }
        }
    }
    let settings = json::<ModelSettings>(&folder.join("config_sentence_transformers.json"))?.unwrap_or_default();
    let prompt =
        |names: [&str; 2]| names.iter().find_map(|name| settings.prompts.get(*name)?.clone()).unwrap_or_default();
    defaults.prompts.query = prompt(["query", "s2p_query"]);
    defaults.prompts.passage = prompt(["document", "passage"]);
    Ok(defaults)
}

fn pooling(path: &Path) -> Result<Pooling> {
    let Some(config) = json::<PoolingConfig>(path)? else {
        let folder = path.parent().unwrap_or(path).to_owned();
        return Err(ModelError::MissingFile { folder, missing: "config.json, which modules.json names".to_owned() });
    };
    if config.include_prompt == Some(false) {
        return Err(ModelError::unsupported(format!("include_prompt = false in {}", path.display()), "expected true"));
    }
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

/// A JSON file; `None` when it is not there.
fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
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

    fn folder(pooling: &str, modules: &str) -> Result<EmbeddingDefaults> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("modules.json", modules);
        write("1_Pooling/config.json", pooling);
        write("sentence_bert_config.json", r#"{"max_seq_length": 12, "do_lower_case": false}"#);
        write("config_sentence_transformers.json", r#"{"prompts": {"query": "q: ", "document": "d: "}}"#);
        read(folder.path(), EmbeddingDefaults::plain(&ModelConfig::tiny()))
    }

    const MODULES: &str = r#"[
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;

    #[test]
    fn both_ways_of_naming_a_pooling_are_read() {
        for (pooling, expected) in [
            (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#, Pooling::Cls),
            (r#"{"pooling_mode_mean_sqrt_len_tokens": true}"#, Pooling::MeanSqrtLen),
            (r#"{"pooling_mode": "lasttoken", "embedding_dimension": 3}"#, Pooling::LastToken),
            ("{}", Pooling::Mean),
        ] {
            let defaults = folder(pooling, MODULES).unwrap();
            assert_eq!(defaults.pooling, expected);
            assert!(defaults.normalize);
            assert_eq!(defaults.max_tokens, 12);
            assert_eq!((defaults.prompts.query.as_str(), defaults.prompts.passage.as_str()), ("q: ", "d: "));
        }
    }

    #[test]
    fn a_pooling_that_is_named_and_missing_is_no_mean() {
        let elsewhere = MODULES.replace("1_Pooling", "3_Pooling");
        assert!(folder("{}", &elsewhere).unwrap_err().to_string().contains("modules.json"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let dense = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Dense"}]"#;
        assert!(folder("{}", dense).unwrap_err().to_string().contains("module Dense"));
        let two = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#;
        assert!(folder(two, MODULES).unwrap_err().to_string().contains("several modes"));
        assert!(folder(r#"{"pooling_mode": "median"}"#, MODULES).unwrap_err().to_string().contains("median"));
    }
}
