//! Models in object storage: fetched into a cache on this machine, and then read like any folder.
//!
//! The store's listing decides: the names, sizes and tags of the files that the encoder reads. If the cache has a model
//! with this listing, nothing is fetched. If the store does not list the model, the copy that was used last is used, as
//! with models of the hub.

mod cache;
mod download;
mod error;
mod manifest;
mod remote;
#[cfg(test)]
mod tests;

use polylance_dataflow::ObjectAddress;
use polylance_encoder::ModelFiles;
use polylance_schema::with_causes;

use self::{
    cache::ModelCache,
    remote::{RemoteFile, RemoteModel, is_gguf, listing_hash},
};

pub use error::BucketModelError;

/// How the cached copy of a model is compared with what was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyCheck {
    /// Sizes and times of the files, and the bytes of small ones.
    Files,
    /// Also the hash of the weights, for callers that need it anyway.
    Weights,
}

/// Finds the model at an address in object storage.
pub(super) async fn find(address: ObjectAddress<'_>, check: CopyCheck) -> Result<ModelFiles, BucketModelError> {
    let name = address.public().map_err(|message| {
        // An address that cannot be taken apart may have a password anywhere.
        BucketModelError::Address { model: "at an invalid address".to_owned(), message }
    })?;
    let key = address.key();
    let entry = if is_gguf(key) { key.rsplit('/').next().unwrap_or(key) } else { "" };
    let cache = ModelCache::of_user(&name, entry)?;
    let listed = match RemoteModel::open(address, &name).await {
        Ok(remote) => remote.list().await.map(|files| (remote, files)),
        Err(error) => Err(error),
    };
    match listed {
        Ok((remote, files)) => find_listed(&remote, &files, &cache, check).await,
        Err(error) => find_unlisted(error, &name, &cache, check).await,
    }
}

/// The model with this listing, from the cache or else from its store.
async fn find_listed(
    remote: &RemoteModel,
    files: &[RemoteFile],
    cache: &ModelCache,
    check: CopyCheck,
) -> Result<ModelFiles, BucketModelError> {
    let state = listing_hash(files);
    if let Some(found) = cache.open(&state, check).await? {
        cache.set_latest(&state);
        return Ok(found);
    }
    let lock = cache.lock().await?;
    // Another process may have fetched it meanwhile.
    if let Some(found) = cache.open(&state, check).await? {
        return Ok(found);
    }
    let partial = cache.begin(&lock)?;
    let mut fetched = Vec::with_capacity(files.len());
    for file in files {
        tracing::info!(model = remote.name, file = file.name, bytes = file.meta.size, "fetching");
        let blake3 = remote.download(file, &partial.path(&file.name)).await?;
        fetched.push((file.name.clone(), blake3));
    }
    cache.complete(lock, partial, fetched, &state).await?;
    cache.set_latest(&state);
    let found = cache.open(&state, check).await?;
    found.ok_or_else(|| cache.damaged(&state))
}

/// The copy that was used last, if there is one, of a model that its store does not list.
async fn find_unlisted(
    error: BucketModelError,
    name: &str,
    cache: &ModelCache,
    check: CopyCheck,
) -> Result<ModelFiles, BucketModelError> {
    let Some(state) = cache.latest() else { return Err(error) };
    let Some(found) = cache.open(&state, check).await? else { return Err(error) };
    tracing::warn!(model = name, error = %with_causes(&error), "the store does not list the model: using the cache");
    Ok(found)
}
