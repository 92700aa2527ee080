//! Models on the hub: fetched into its usual cache, or taken from there when offline.

use std::{
    env,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache,
    api::sync::{ApiBuilder, ApiRepo},
};

use crate::error::{ModelError, Result};

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// Files that a model may have beside its weights.
const OPTIONAL: [&str; 3] = ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"];
/// What follows the number in the folder of a pooling.
const POOLING: &str = "_Pooling/config.json";

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
        let cached = Cache::from_env().model(model.to_owned()).get("config.json");
        return cached.map(parent).ok_or_else(|| ModelError::NotFound {
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
    if let Err(error) = fetch(&repo, model) {
        // A model that was fetched before is good without the network too.
        let cached = Cache::from_env().model(model.to_owned()).get("config.json");
        let Some(config) = cached else { return Err(failed(error)) };
        tracing::warn!(model, %error, "the hub does not answer: using the cache");
        return Ok(parent(config));
    }
    repo.get("config.json").map(parent).map_err(failed)
}

fn offline() -> bool {
    env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}

/// Fetches what the encoder reads: configuration, tokenizer, and one form of the weights.
fn fetch(repo: &ApiRepo, model: &str) -> std::result::Result<(), hf_hub::api::sync::ApiError> {
    let names: Vec<String> = repo.info()?.siblings.into_iter().map(|file| file.rfilename).collect();
    let has = |name: &str| names.iter().any(|file| file == name);
    let mut wanted: Vec<&str> = ["config.json", "tokenizer.json"].into_iter().filter(|name| has(name)).collect();
    wanted.extend(OPTIONAL.into_iter().filter(|name| has(name)));
    wanted.extend(names.iter().filter(|name| name.ends_with(POOLING)).map(String::as_str));
    let (single, sharded): (&[&str], &[&str]) = (
        &["model.safetensors", "pytorch_model.bin"],
        &["model.safetensors.index.json", "pytorch_model.bin.index.json"],
    );
    for (single, index) in single.iter().zip(sharded) {
        let suffix = single.rsplit('.').next().unwrap_or_default();
        if has(single) {
            wanted.push(single);
        } else if has(index) {
            wanted.push(index);
            let stem = single.trim_end_matches(suffix).trim_end_matches('.');
            let shard = |name: &&String| name.starts_with(&format!("{stem}-")) && name.ends_with(suffix);
            wanted.extend(names.iter().filter(shard).map(String::as_str));
        } else {
            continue;
        }
        break;
    }
    for name in wanted {
        tracing::info!(model, file = name, "fetching");
        repo.get(name)?;
    }
    Ok(())
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
}
