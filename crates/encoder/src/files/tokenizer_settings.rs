//! Tokenizer settings that are not in `tokenizer.json`: lower case, the longest input, and the truncated end.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    sentence_transformers::{TransformerSettings, json},
    settings::refused,
};
use crate::error::{ModelError, Result};

/// The end of a text that is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncationSide {
    /// The last tokens are dropped.
    #[default]
    Right,
    /// The first tokens are dropped.
    Left,
}

/// Settings of a tokenizer that are not in its `tokenizer.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenizerSettings {
    /// Whether a decomposed text is composed (NFC) for a tokenizer with a table of `SentencePiece`.
    pub compose: bool,
    /// Whether texts are lowercased first, character by character.
    pub lowercase: bool,
    /// The end of a text that is truncated.
    pub truncation_side: TruncationSide,
}

impl Default for TokenizerSettings {
    fn default() -> Self {
        Self { compose: true, lowercase: false, truncation_side: TruncationSide::Right }
    }
}

/// The settings, and the limit on the tokens of an input if `tokenizer_config.json` has one.
pub(super) struct TokenizerFiles {
    pub(super) settings: TokenizerSettings,
    /// The limit of transformers' pipelines.
    pub(super) limit: Option<usize>,
    /// The limit of sentence-transformers.
    pub(super) sentence_limit: Option<usize>,
}

/// The parts of `tokenizer.json` that the settings depend on; the vocabulary is skipped.
#[derive(Deserialize, Default)]
struct TokenizerJson {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    truncation: Value,
}

/// Whether a tokenizer's normalizer has a table of `SentencePiece`: then a decomposed text may be composed.
pub(super) fn has_table(tokenizer_json: &[u8]) -> bool {
    let tokenizer: TokenizerJson = serde_json::from_slice(tokenizer_json).unwrap_or_default();
    part(&tokenizer.normalizer, "Precompiled").is_some()
}

/// Numbers from here on mean no limit: transformers writes 10^30.
const UNLIMITED_TOKENS: f64 = 1e20;

impl TokenizerFiles {
    /// Reads `tokenizer_config.json` of `folder`, and compares it with its `tokenizer.json`.
    ///
    /// Source: `TokenizersBackend`, `BertTokenizer` and `XLMRobertaTokenizer` in transformers 5.24, and `Transformer`
    /// in sentence-transformers 6.2.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for a key whose value `tokenizer.json` contradicts.
    pub(super) fn read(folder: &Path, transformer: &TransformerSettings) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        let config: Map<String, Value> = json(&path)?.unwrap_or_default();
        let json_path = folder.join("tokenizer.json");
        // A broken tokenizer is refused when it is loaded, with a better reason.
        let tokenizer: TokenizerJson =
            std::fs::read(&json_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        check_class(&config, &tokenizer, &path)?;

        let side = match (&transformer.truncation_side, config.get("truncation_side").and_then(Value::as_str)) {
            (Some(side), _) => Some(side.as_str()),
            (None, Some(side)) => Some(side),
            // The section of `tokenizer.json` applies last.
            (None, None) => tokenizer.truncation.get("direction").and_then(Value::as_str),
        };
        let truncation_side = match side.map(str::to_ascii_lowercase).as_deref() {
            None | Some("right") => TruncationSide::Right,
            Some("left") => TruncationSide::Left,
            Some(other) => return Err(refused("truncation_side", &other.into(), &path, "\"right\" or \"left\"")),
        };
        let written = config.get("model_max_length").or_else(|| config.get("max_len"));
        let limit = limit("model_max_length", written, &path)?;
        let sentence_limit = match &transformer.model_max_length {
            Some(set) => self::limit("model_max_length", Some(set), &folder.join("sentence_bert_config.json"))?,
            None => transformer.max_seq_length.or(limit),
        };
        let settings =
            TokenizerSettings { lowercase: transformer.lowercase, truncation_side, ..TokenizerSettings::default() };
        Ok(Self { settings, limit, sentence_limit })
    }
}

/// A limit; `None` for no limit.
fn limit(key: &str, value: Option<&Value>, path: &Path) -> Result<Option<usize>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_f64() {
        Some(number) if number >= UNLIMITED_TOKENS => Ok(None),
        Some(number) if number >= 1.0 => Ok(Some(number as usize)),
        _ => Err(ModelError::config(path, format!("{key} is {value}, expected a number from 1"))),
    }
}

/// Checks the classes that build parts of the tokenizer from `tokenizer_config.json`, which must agree with
/// `tokenizer.json`. Other classes use `tokenizer.json` unchanged.
fn check_class(config: &Map<String, Value>, tokenizer: &TokenizerJson, path: &Path) -> Result<()> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let class = class.trim_end_matches("Fast");
    let contradicted = |key: &str, value: &Value, found: &Value| {
        let expected = format!("{found}, as tokenizer.json has it: save the tokenizer again with save_pretrained");
        Err(refused(key, value, path, &expected))
    };
    if class == "BertTokenizer" {
        let bert = part(&tokenizer.normalizer, "BertNormalizer");
        for (key, name) in [
            ("do_lower_case", "lowercase"),
            ("strip_accents", "strip_accents"),
            ("tokenize_chinese_chars", "handle_chinese_chars"),
        ] {
            let (Some(value), Some(found)) = (config.get(key), bert.and_then(|bert| bert.get(name))) else { continue };
            if value != found {
                return contradicted(key, value, found);
            }
        }
    }
    if class == "XLMRobertaTokenizer"
        && let Some(value) = config.get("add_prefix_space").filter(|value| value.is_boolean())
        && let Some(metaspace) = part(&tokenizer.pre_tokenizer, "Metaspace")
    {
        let scheme = metaspace.get("prepend_scheme").and_then(Value::as_str);
        let found = scheme.map_or_else(
            || metaspace.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(true),
            |scheme| scheme != "never",
        );
        if *value != found {
            return contradicted("add_prefix_space", value, &found.into());
        }
    }
    if matches!(class, "BertTokenizer" | "XLMRobertaTokenizer") && !tokenizer.post_processor.is_null() {
        let template = tokenizer.post_processor.to_string();
        let parts = if class == "BertTokenizer" { ["cls_token", "sep_token"] } else { ["bos_token", "eos_token"] };
        for key in parts {
            let Some(value) = config.get(key) else { continue };
            let Some(token) = value.as_str().or_else(|| value.get("content")?.as_str()) else { continue };
            if !template.contains(&Value::from(token).to_string()) {
                return Err(refused(key, value, path, "a token that the post_processor of tokenizer.json adds"));
            }
        }
    }
    Ok(())
}

/// The part of this type, alone or in a sequence.
fn part<'a>(value: &'a Value, kind: &str) -> Option<&'a Value> {
    match value {
        Value::Object(keys) if keys.get("type").and_then(Value::as_str) == Some(kind) => Some(value),
        Value::Object(keys) => keys.values().find_map(|value| part(value, kind)),
        Value::Array(items) => items.iter().find_map(|value| part(value, kind)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn read(config: &Value, tokenizer: &Value, transformer: &TransformerSettings) -> Result<TokenizerFiles> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        TokenizerFiles::read(folder.path(), transformer)
    }

    #[test]
    fn limits_match_sentence_transformers_and_pipelines() {
        let limits = |config: Value, transformer: TransformerSettings| {
            let files = read(&config, &json!({}), &transformer).unwrap();
            (files.limit, files.sentence_limit)
        };
        let none = TransformerSettings::default;
        assert_eq!(limits(json!({}), none()), (None, None));
        assert_eq!(limits(json!({"model_max_length": 24}), none()), (Some(24), Some(24)));
        let large: Value = serde_json::from_str(r#"{"model_max_length": 1000000000000000019884624838656}"#).unwrap();
        assert_eq!(limits(large, none()), (None, None));
        let set = TransformerSettings { max_seq_length: Some(64), ..none() };
        assert_eq!(limits(json!({"model_max_length": 24}), set), (Some(24), Some(64)));
        let args = TransformerSettings { max_seq_length: Some(64), model_max_length: Some(json!(8)), ..none() };
        assert_eq!(limits(json!({}), args), (None, Some(8)));
        for bad in [json!(0), json!("many")] {
            let error = read(&json!({"model_max_length": bad}), &json!({}), &none()).err().unwrap().to_string();
            assert!(error.contains("model_max_length is "), "{error}");
        }
    }

    #[test]
    fn truncation_side_follows_the_precedence() {
        let side = |config: Value, tokenizer: Value, set: Option<&str>| {
            let transformer =
                TransformerSettings { truncation_side: set.map(str::to_owned), ..TransformerSettings::default() };
            Ok::<_, String>(
                read(&config, &tokenizer, &transformer).map_err(|error| error.to_string())?.settings.truncation_side,
            )
        };
        let left = json!({"truncation": {"direction": "Left", "max_length": 8}});
        assert_eq!(side(json!({}), json!({}), None), Ok(TruncationSide::Right));
        assert_eq!(side(json!({"truncation_side": "left"}), json!({}), None), Ok(TruncationSide::Left));
        assert_eq!(side(json!({}), left.clone(), None), Ok(TruncationSide::Left));
        assert_eq!(side(json!({"truncation_side": "right"}), left, None), Ok(TruncationSide::Right));
        assert_eq!(side(json!({"truncation_side": "right"}), json!({}), Some("left")), Ok(TruncationSide::Left));
        assert!(side(json!({"truncation_side": "both"}), json!({}), None).unwrap_err().contains("truncation_side"));
    }

    #[test]
    fn settings_that_contradict_tokenizer_json_are_refused() {
        let bert = json!({"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "BertNormalizer", "lowercase": false, "strip_accents": null, "handle_chinese_chars": true}]},
            "post_processor": {"type": "TemplateProcessing", "special_tokens": {"[CLS]": {"id": "[CLS]"}}}});
        let xlmr = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]}});
        let read = |config: Value, tokenizer: &Value| {
            read(&config, tokenizer, &TransformerSettings::default()).map(|_| ()).map_err(|error| error.to_string())
        };
        let lower = |class: &str| json!({"tokenizer_class": class, "do_lower_case": true});
        assert!(read(lower("BertTokenizerFast"), &bert).unwrap_err().contains("do_lower_case true"));
        assert_eq!(read(lower("PreTrainedTokenizerFast"), &bert), Ok(()));
        assert_eq!(read(json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false}), &bert), Ok(()));
        let other = json!({"tokenizer_class": "BertTokenizer", "cls_token": {"content": "<cls>"}});
        assert!(read(other, &bert).unwrap_err().contains("cls_token"));
        let space = |value: bool| json!({"tokenizer_class": "XLMRobertaTokenizer", "add_prefix_space": value});
        assert!(read(space(false), &xlmr).unwrap_err().contains("add_prefix_space false"));
        assert_eq!(read(space(true), &xlmr), Ok(()));
    }
}
