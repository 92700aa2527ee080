//! Models on the hub: fetched into its usual cache, or read from there when offline.

use std::path::{Path, PathBuf};

use hf_hub::{
    Cache, CacheRepo,
    api::sync::{Api, ApiBuilder, ApiRepo},
};
use polylance_hub::HubSettings;

use super::{
    download,
    needed::{ANCHOR_FILES, is_path_inside, needed_files},
};
use crate::error::ModelError;

/// The largest size of a model's file in bytes: a larger one is refused.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// Whether a text looks like a model's name on the hub.
pub(super) fn is_name(model: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let parts: Vec<&str> = model.split('/').collect();
    (1..=2).contains(&parts.len()) && parts.iter().all(|p| part(p))
}

/// The folder with the model's files, which are fetched if they are missing.
pub(super) fn folder(model: &str) -> Result<PathBuf, ModelError> {
    let parent = |config: PathBuf| config.parent().map(Path::to_owned).unwrap_or_default();
    let HubSettings { endpoint, token, offline } = HubSettings::from_env();
    if offline {
        let cached = anchor(&Cache::from_env().model(model.to_owned()));
        return cached.map(parent).ok_or_else(|| ModelError::NotFound {
            model: model.to_owned(),
            reason: "no such file or folder, the hub's cache does not have it, and HF_HUB_OFFLINE is set".to_owned(),
        });
    }
    let builder = ApiBuilder::from_env().with_progress(false).with_retries(3).with_endpoint(endpoint.clone());
    let builder = builder.with_token(token.as_ref().map(|token| token.secret().to_owned()));
    let failed = |message: String| ModelError::Hub { model: model.to_owned(), endpoint: endpoint.clone(), message };
    let api = builder.build().map_err(|error| failed(error.to_string()))?;
    let repo = Repository {
        files: api.model(model.to_owned()),
        cache: Cache::from_env().model(model.to_owned()),
        agent: download::agent(&endpoint, token),
        api,
    };
    match repo.fetch(model) {
        Ok(()) => {}
        Err(Failure::Hostile(message)) => return Err(failed(message)),
        Err(Failure::Unreachable(error)) => {
            // A model that was fetched before needs no network.
            let Some(anchor) = anchor(&repo.cache) else { return Err(failed(error)) };
            tracing::warn!(model, %error, "the hub does not answer: using the cache");
            return Ok(parent(anchor));
        }
    }
    let missing = || failed(format!("the repository has none of {}", ANCHOR_FILES.join(", ")));
    anchor(&repo.cache).map(parent).ok_or_else(missing)
}

/// The file by which the folder of a cached model is found.
fn anchor(cache: &CacheRepo) -> Option<PathBuf> {
    ANCHOR_FILES.iter().find_map(|name| cache.get(name))
}

/// A repository of the hub, and its folder in the cache.
struct Repository {
    api: Api,
    files: ApiRepo,
    cache: CacheRepo,
    agent: download::Agent,
}

/// Why nothing was fetched.
enum Failure {
    /// The hub did not respond, or has no such repository.
    Unreachable(String),
    /// The response is not that of a hub: neither the hub nor the cache is used.
    Hostile(String),
}

impl Repository {
    /// Fetches the files that the encoder reads and the cache lacks.
    fn fetch(&self, model: &str) -> Result<(), Failure> {
        let info = self.files.info().map_err(|error| Failure::Unreachable(error.to_string()))?;
        let names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let needed = needed_files(&names);
        refuse_paths_outside(&needed)?;
        // The first file of a newer commit moves the cache to that commit: files of the older one are fetched again.
        for name in needed.iter().chain(&needed) {
            if self.cache.get(name).is_some() {
                continue;
            }
            tracing::info!(model, file = name, "fetching");
            self.download(name)?;
        }
        Ok(())
    }

    fn download(&self, name: &str) -> Result<(), Failure> {
        let url = self.files.url(name);
        let about = self.api.metadata(&url).map_err(|error| Failure::Unreachable(error.to_string()))?;
        // A weak ETag identifies the same bytes here.
        let etag = about.etag().trim_start_matches("W/");
        for (what, value) in [("ETag", etag), ("commit", about.commit_hash())] {
            if !is_plain_name(value) {
                return Err(Failure::Hostile(format!("the hub returned {value:?} as the {what} of {name}")));
            }
        }
        if about.size() as u64 > MAX_FILE_BYTES {
            let message =
                format!("{name} has {} bytes, and a file of a model has at most {MAX_FILE_BYTES}", about.size());
            return Err(Failure::Hostile(message));
        }
        let blob = self.cache.blob_path(etag);
        let unreachable = |error: std::io::Error| Failure::Unreachable(format!("{name}: {error}"));
        if !blob.is_file() {
            self.agent.download(&url, about.size() as u64, &blob).map_err(unreachable)?;
        }
        let pointer = self.cache.pointer_path(about.commit_hash()).join(name);
        download::point(&pointer, &blob).map_err(unreachable)?;
        self.cache.create_ref(about.commit_hash()).map_err(unreachable)
    }
}

/// Refuses a hub that lists a path outside the repository among the files to read: nothing is fetched from it.
fn refuse_paths_outside(names: &[&str]) -> Result<(), Failure> {
    match names.iter().find(|name| !is_path_inside(name)) {
        None => Ok(()),
        Some(name) => {
            Err(Failure::Hostile(format!("the hub lists a file {name:?}, which is no path inside a repository")))
        }
    }
}

/// Whether the name of a file in the cache is a plain name, without a path.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=128).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_are_distinguished_from_paths() {
        for name in ["intfloat/multilingual-e5-small", "xlm-roberta-base", "facebook/xlm-roberta-xl"] {
            assert!(is_name(name), "{name}");
        }
        for path in ["./model", "/models/x", "a/b/c", "model dir", "", "../x"] {
            assert!(!is_name(path), "{path}");
        }
    }

    #[test]
    fn path_outside_the_repository_is_refused() {
        for name in [
            "../x_Pooling/config.json",
            "/x_Pooling/config.json",
            "a/../../x_Normalize/config.json",
            "../0_Transformer/config.json",
            "C:\\0_Transformer/config.json",
            "model-/../../x.safetensors",
            "a\n_Pooling/config.json",
        ] {
            let names = ["config.json", "model.safetensors.index.json", name].map(str::to_owned);
            let needed = needed_files(&names);
            assert!(needed.contains(&name), "{name:?}");
            assert!(matches!(refuse_paths_outside(&needed), Err(Failure::Hostile(_))), "{name:?}");
        }
        // A file that is not read is no reason to refuse a model.
        let names = ["config.json", "../README.md"].map(str::to_owned);
        assert!(refuse_paths_outside(&needed_files(&names)).is_ok());
    }

    #[test]
    fn hub_responses_stay_inside_the_cache() {
        for name in ["c0ffee", "config.json-1", "5eb63bbbe01eeed093cb22bb8f5acdc3"] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in ["../../x", "a/b", "..", ".hidden", "", "a b", "a\u{0}", &"x".repeat(129)] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }
}
