//! Settings of a model's folder: each key is computed, changes no vector, or is refused by name.
//!
//! Source: the keys that sentence-transformers 6.2 and transformers 5.24 read. Both raise an error for an unknown key
//! in `sentence_bert_config.json` and `N_Pooling/config.json`, and ignore it in `config_sentence_transformers.json`.
//! This module does the same, and lists the ignored key as unused.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{ModelError, Result};

/// The effect of a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// Another module reads it.
    Computed,
    /// It changes no vector.
    Harmless,
    /// Only these values are supported, written as JSON. Absent and `null` are always accepted.
    Only(&'static [&'static str]),
    /// An object, whose keys are in the inner table.
    Object(&'static [(&'static str, Effect)]),
}

/// The keys of a file, and the treatment of unknown keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) keys: &'static [(&'static str, Effect)],
    pub(super) unknown: Unknown,
}

/// The treatment of unknown keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It is refused.
    Refused,
    /// It is listed as unused.
    Unused,
}

use Effect::{Computed, Harmless, Object, Only};

/// `config_sentence_transformers.json`.
pub(super) const MODEL_SETTINGS: Settings = Settings {
    keys: &[
        ("__version__", Harmless),
        ("prompts", Computed),
        ("default_prompt_name", Computed),
        // Used by `model.similarity`, not by `encode`.
        ("similarity_fn_name", Harmless),
        ("model_type", Only(&[r#""SentenceTransformer""#, r#""CrossEncoder""#])),
        // sentence-transformers truncates a vector after normalization, this crate before.
        ("truncate_dim", Only(&[])),
        // A cross-encoder's.
        ("activation_fn", Computed),
    ],
    unknown: Unknown::Unused,
};

/// Arguments of `from_pretrained` that change at most the last bits of a vector.
const LOADING_ARGUMENTS: &[(&str, Effect)] = &[
    ("trust_remote_code", Harmless),
    ("torch_dtype", Harmless),
    ("dtype", Harmless),
    ("attn_implementation", Harmless),
    ("device_map", Harmless),
    ("low_cpu_mem_usage", Harmless),
    ("use_safetensors", Harmless),
    ("add_pooling_layer", Harmless),
    ("use_cache", Harmless),
    ("output_attentions", Only(&["false"])),
    ("output_hidden_states", Only(&["false"])),
];

/// Arguments of the tokenizer.
const TOKENIZER_ARGUMENTS: &[(&str, Effect)] = &[
    ("model_max_length", Computed),
    ("truncation_side", Computed),
    ("do_lower_case", Only(&["false"])),
    ("padding_side", Harmless),
    ("use_fast", Harmless),
    ("trust_remote_code", Harmless),
    ("clean_up_tokenization_spaces", Harmless),
];

/// `sentence_bert_config.json`.
pub(super) const TRANSFORMER_SETTINGS: Settings = Settings {
    keys: &[
        ("max_seq_length", Computed),
        ("do_lower_case", Computed),
        ("model_args", Object(LOADING_ARGUMENTS)),
        ("model_kwargs", Object(LOADING_ARGUMENTS)),
        ("tokenizer_args", Object(TOKENIZER_ARGUMENTS)),
        ("processor_kwargs", Object(TOKENIZER_ARGUMENTS)),
        ("config_args", Object(LOADING_ARGUMENTS)),
        ("config_kwargs", Object(LOADING_ARGUMENTS)),
        ("transformer_task", Only(&[r#""feature-extraction""#, r#""sequence-classification""#])),
        ("modality_config", Object(&[("text", Object(MODALITY_KEYS))])),
        ("module_output_name", Only(&[r#""token_embeddings""#, r#""scores""#])),
        ("processing_kwargs", Object(&[])),
        ("unpad_inputs", Harmless),
        ("query_length", Only(&[])),
        ("document_length", Only(&[])),
        ("query_expansion", Only(&[])),
        ("tokenizer_name_or_path", Only(&[])),
    ],
    unknown: Unknown::Refused,
};

/// The processing of a text.
const MODALITY_KEYS: &[(&str, Effect)] =
    &[("method", Only(&[r#""forward""#])), ("method_output_name", Only(&[r#""last_hidden_state""#, r#""logits""#]))];

/// `N_Pooling/config.json`.
pub(super) const POOLING_SETTINGS: Settings = Settings {
    keys: &[
        ("word_embedding_dimension", Harmless),
        ("embedding_dimension", Harmless),
        ("pooling_mode", Computed),
        ("pooling_mode_cls_token", Computed),
        ("pooling_mode_mean_tokens", Computed),
        ("pooling_mode_max_tokens", Computed),
        ("pooling_mode_mean_sqrt_len_tokens", Computed),
        ("pooling_mode_weightedmean_tokens", Computed),
        ("pooling_mode_lasttoken", Computed),
        ("include_prompt", Only(&["true"])),
    ],
    unknown: Unknown::Refused,
};

/// `N_Normalize/config.json`.
pub(super) const NORMALIZE_SETTINGS: Settings = Settings {
    keys: &[
        ("module_input_name", Only(&[r#""sentence_embedding""#])),
        ("module_output_name", Only(&[r#""sentence_embedding""#])),
    ],
    unknown: Unknown::Refused,
};

impl Settings {
    /// Checks a file's keys, and returns the unused ones.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] with the key and its value.
    pub(super) fn check(&self, keys: &Map<String, Value>, path: &Path) -> Result<Vec<String>> {
        let mut unused = Vec::new();
        for (key, value) in keys {
            match self.keys.iter().find(|(known, _)| known == key) {
                Some((_, effect)) => effect.check(key, value, path)?,
                None if self.unknown == Unknown::Refused => return Err(refused(key, value, path, "no such key")),
                None => unused.push(format!("{key} in {}", path.display())),
            }
        }
        Ok(unused)
    }
}

impl Effect {
    fn check(self, key: &str, value: &Value, path: &Path) -> Result<()> {
        if value.is_null() {
            return Ok(());
        }
        match self {
            Computed | Harmless => Ok(()),
            Only(accepted) if accepted.contains(&value.to_string().as_str()) => Ok(()),
            Only([]) => Err(refused(key, value, path, "no value")),
            Only(accepted) => Err(refused(key, value, path, &accepted.join(" or "))),
            Object(known) => {
                let Some(inner) = value.as_object() else { return Err(refused(key, value, path, "an object")) };
                for (name, value) in inner {
                    let name_in = format!("{key}.{name}");
                    match known.iter().find(|(known, _)| known == name) {
                        Some((_, effect)) => effect.check(&name_in, value, path)?,
                        None => return Err(refused(&name_in, value, path, "no such key")),
                    }
                }
                Ok(())
            }
        }
    }
}

/// `key value in path is not supported: expected …`.
pub(super) fn refused(key: &str, value: &Value, path: &Path, expected: &str) -> ModelError {
    ModelError::unsupported(format!("{key} {value} in {}", path.display()), format!("expected {expected}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(settings: Settings, keys: &Value) -> std::result::Result<Vec<String>, String> {
        settings.check(keys.as_object().unwrap(), Path::new("f.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_of_sentence_transformers_are_accepted() {
        let transformer = json!({
            "transformer_task": "feature-extraction", "module_output_name": "token_embeddings", "query_length": null,
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "max_seq_length": 128, "do_lower_case": true, "model_args": {"torch_dtype": "float16"},
            "tokenizer_args": {"model_max_length": 64, "truncation_side": "left"}, "config_args": {},
        });
        assert_eq!(check(TRANSFORMER_SETTINGS, &transformer), Ok(Vec::new()));
        let model = json!({"__version__": {}, "prompts": {}, "default_prompt_name": null, "truncate_dim": null,
            "similarity_fn_name": "dot", "model_type": "SentenceTransformer"});
        assert_eq!(check(MODEL_SETTINGS, &model), Ok(Vec::new()));
        assert_eq!(check(POOLING_SETTINGS, &json!({"embedding_dimension": 8, "include_prompt": true})), Ok(Vec::new()));
    }

    #[test]
    fn unsupported_settings_are_refused_by_name() {
        for (settings, keys, expected) in [
            (
                TRANSFORMER_SETTINGS,
                json!({"config_args": {"num_hidden_layers": 3}}),
                "config_args.num_hidden_layers 3 in f.json",
            ),
            (
                TRANSFORMER_SETTINGS,
                json!({"tokenizer_args": {"do_lower_case": true}}),
                "tokenizer_args.do_lower_case true",
            ),
            (TRANSFORMER_SETTINGS, json!({"model_args": {"subfolder": "x"}}), "model_args.subfolder \"x\""),
            (TRANSFORMER_SETTINGS, json!({"transformer_task": "fill-mask"}), "transformer_task \"fill-mask\""),
            (TRANSFORMER_SETTINGS, json!({"processing_kwargs": {"text": {"max_length": 8}}}), "processing_kwargs.text"),
            (
                TRANSFORMER_SETTINGS,
                json!({"query_length": 32}),
                "query_length 32 in f.json is not supported: expected no value",
            ),
            (TRANSFORMER_SETTINGS, json!({"do_upper_case": true}), "do_upper_case true"),
            (MODEL_SETTINGS, json!({"truncate_dim": 16}), "truncate_dim 16"),
            (MODEL_SETTINGS, json!({"model_type": "SparseEncoder"}), "model_type \"SparseEncoder\""),
            (
                POOLING_SETTINGS,
                json!({"include_prompt": false}),
                "include_prompt false in f.json is not supported: expected true",
            ),
            (POOLING_SETTINGS, json!({"pooling_mode_median": true}), "pooling_mode_median true"),
            (NORMALIZE_SETTINGS, json!({"module_input_name": "token_embeddings"}), "module_input_name"),
        ] {
            let message = check(settings, &keys).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn ignored_keys_are_listed_as_unused() {
        assert_eq!(check(MODEL_SETTINGS, &json!({"author": "me"})), Ok(vec!["author in f.json".to_owned()]));
    }
}
