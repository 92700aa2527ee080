//! Models on the hub: fetched into its usual cache, or taken from there when offline.

use std::{
    env,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache,
    api::sync::{ApiBuilder, ApiRepo},
};

use super::sentence_transformers::TRANSFORMER_FILES;
use crate::error::{ModelError, Result};

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// Files that a model may have beside its weights; an adapter's, so that it is seen and refused.
const OPTIONAL: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "adapter_config.json",
];
/// What follows the number in the folder of a pooling and of a normalization.
const MODULES: [&str; 2] = ["_Pooling/config.json", "_Normalize/config.json"];
/// What the folder of a Transformer module ends with.
const TRANSFORMER: &str = "_Transformer/";
/// The file of a model that its folder is found by: of an older sentence-transformers model, `config.json` is in the
/// folder of a module.
const ANCHORS: [&str; 3] = ["config.json", "modules.json", "adapter_config.json"];

/// Whether a text has the form of a model's name on the hub.
pub(super) fn is_name(model: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let parts: Vec<&str> = model.split('/').collect();
    (1..=2).contains(&parts.len()) && parts.iter().all(|p| part(p))
}

/// The folder with the model's files, fetched when they are not there.
pub(super) fn folder(model: &str) -> Result<PathBuf> {
    let parent = |config: PathBuf| config.parent().map(Path::to_owned).unwrap_or_default();
    if offline() {
        return cached(model).map(parent).ok_or_else(|| ModelError::NotFound {
            model: model.to_owned(),
            reason: "no such file or folder, the hub's cache does not have it, and HF_HUB_OFFLINE is set".to_owned(),
        });
    }
    let endpoint = env::var("HF_ENDPOINT").unwrap_or_else(|_| ENDPOINT.to_owned());
    let failed = |error: hf_hub::api::sync::ApiError| ModelError::Hub {
        model: model.to_owned(),
        endpoint: endpoint.clone(),
        message: error.to_string(),
    };
    let mut builder = ApiBuilder::from_env().with_progress(false).with_retries(3);
    if let Ok(token) = env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let repo = builder.build().map_err(failed)?.model(model.to_owned());
    let fetched = fetch(&repo, model);
    if let Ok(Some(file)) = fetched {
        return Ok(parent(file));
    }
    if let Err(error) = fetched {
        // A model that was fetched before is good without the network too.
        let Some(config) = cached(model) else { return Err(failed(error)) };
        tracing::warn!(model, %error, "the hub does not answer: using the cache");
        return Ok(parent(config));
    }
    repo.get(ANCHORS[0]).map(parent).map_err(failed)
}

/// The file that a cached model's folder is found by.
fn cached(model: &str) -> Option<PathBuf> {
    let cache = Cache::from_env().model(model.to_owned());
    ANCHORS.iter().find_map(|name| cache.get(name))
}

fn offline() -> bool {
    env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}

/// Fetches what the encoder reads, and returns the first of [`ANCHORS`]; `None` when there is none of them.
fn fetch(repo: &ApiRepo, model: &str) -> std::result::Result<Option<PathBuf>, hf_hub::api::sync::ApiError> {
    let names: Vec<String> = repo.info()?.siblings.into_iter().map(|file| file.rfilename).collect();
    let mut anchor = None;
    for name in wanted(&names) {
        tracing::info!(model, file = name, "fetching");
        let path = repo.get(name)?;
        if ANCHORS.contains(&name) {
            anchor.get_or_insert(path);
        }
    }
    Ok(anchor)
}

/// Of a repository's files those that the encoder reads: settings, tokenizer, and one form of the weights, of the
/// repository's folder and of a Transformer module's.
fn wanted(names: &[String]) -> Vec<&str> {
    let inside = |name: &&String| !name.split('/').any(|part| matches!(part, "" | "." | ".."));
    let names: Vec<&str> = names.iter().filter(inside).map(String::as_str).collect();
    let modules = names.iter().filter_map(|name| name.strip_suffix("config.json"));
    let modules: Vec<&str> = modules.filter(|folder| folder.ends_with(TRANSFORMER)).collect();
    let mut wanted: Vec<&str> = Vec::new();
    for folder in std::iter::once("").chain(modules) {
        let find = |name: &str| names.iter().find(|file| file.strip_prefix(folder) == Some(name)).copied();
        wanted.extend(OPTIONAL.into_iter().chain(TRANSFORMER_FILES).filter_map(find));
        for (single, index, shard) in [
            ("model.safetensors", "model.safetensors.index.json", ("model-", ".safetensors")),
            ("pytorch_model.bin", "pytorch_model.bin.index.json", ("pytorch_model-", ".bin")),
        ] {
            if let Some(single) = find(single) {
                wanted.push(single);
            } else if let Some(index) = find(index) {
                wanted.push(index);
                let is_shard = |name: &&&str| {
                    let name = name.strip_prefix(folder).unwrap_or_default();
                    name.starts_with(shard.0) && name.ends_with(shard.1)
                };
                wanted.extend(names.iter().filter(is_shard));
            } else {
                continue;
            }
            break;
        }
    }
    wanted.extend(names.iter().filter(|name| MODULES.iter().any(|module| name.ends_with(module))));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        for name in ["intfloat/multilingual-e5-small", "xlm-roberta-base", "facebook/xlm-roberta-xl"] {
            assert!(is_name(name), "{name}");
        }
        for path in ["./model", "/models/x", "a/b/c", "model dir", "", "../x"] {
            assert!(!is_name(path), "{path}");
        }
    }

    #[test]
    fn what_is_read_is_fetched_and_nothing_else() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            wanted(&names).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let whole = of(&[
            "1_Pooling/config.json",
            "README.md",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "sentence_bert_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "../x_Pooling/config.json",
        ]);
        assert_eq!(
            whole,
            [
                "config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "sentence_bert_config.json",
                "model.safetensors",
                "1_Pooling/config.json",
            ]
        );
        let old = of(&[
            "0_Transformer/config.json",
            "0_Transformer/pytorch_model.bin.index.json",
            "0_Transformer/pytorch_model-00001-of-00001.bin",
            "0_Transformer/tokenizer.json",
            "modules.json",
        ]);
        assert_eq!(
            old,
            [
                "modules.json",
                "0_Transformer/config.json",
                "0_Transformer/tokenizer.json",
                "0_Transformer/pytorch_model.bin.index.json",
                "0_Transformer/pytorch_model-00001-of-00001.bin",
            ]
        );
        assert_eq!(of(&["adapter_config.json", "adapter_model.safetensors"]), ["adapter_config.json"]);
    }
}
