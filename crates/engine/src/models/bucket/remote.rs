//! The files of a model in their store.

use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc};

use futures::TryStreamExt;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use polylance_dataflow::ObjectAddress;
use polylance_encoder::{ANCHOR_FILES, is_path_inside, needed_files};

use super::error::BucketModelError;

/// The largest number of objects below the folder of a model: with more, the address is that of another folder.
const MAX_OBJECTS: usize = 10_000;

/// A model in its store.
#[derive(Debug, Clone)]
pub(super) struct RemoteModel {
    /// The address without a password.
    pub(super) name: String,
    pub(super) store: Arc<dyn ObjectStore>,
    /// The key of its folder or of its `.gguf` file.
    pub(super) key: String,
}

/// A file of a model that the encoder reads.
#[derive(Debug, Clone)]
pub(super) struct RemoteFile {
    /// Its path in the model's folder.
    pub(super) name: String,
    pub(super) meta: ObjectMeta,
}

impl RemoteModel {
    /// Opens the store of a model, whose address without a password is `name`.
    pub(super) async fn open(address: ObjectAddress<'_>, name: &str) -> Result<Self, BucketModelError> {
        let refuse = |message| BucketModelError::Address { model: name.to_owned(), message };
        let store = address.open().await.map_err(refuse)?;
        Ok(Self { name: name.to_owned(), store, key: address.key().to_owned() })
    }

    pub(super) fn store_error(&self, source: Error) -> BucketModelError {
        BucketModelError::Store { model: self.name.clone(), source }
    }

    fn no_model(&self, reason: impl Into<String>) -> BucketModelError {
        BucketModelError::NoModel { model: self.name.clone(), reason: reason.into() }
    }

    /// The files that the encoder reads, by name.
    pub(super) async fn list(&self) -> Result<Vec<RemoteFile>, BucketModelError> {
        let parsed = Path::parse(&self.key);
        let path = parsed.map_err(|error| self.no_model(error.to_string()))?;
        if is_gguf(&self.key) { self.list_gguf(path).await } else { self.list_folder(&path).await }
    }

    /// A `.gguf` file and the tokenizer next to it.
    async fn list_gguf(&self, path: Path) -> Result<Vec<RemoteFile>, BucketModelError> {
        const TOKENIZER: &str = "tokenizer.json";
        let (folder, name) = path.as_ref().rsplit_once('/').unwrap_or_else(|| ("", path.as_ref()));
        let name = name.to_owned();
        let tokenizer =
            Path::parse(format!("{folder}/{TOKENIZER}")).map_err(|error| self.no_model(error.to_string()))?;
        let mut files = Vec::with_capacity(2);
        for (name, path) in [(name, path), (TOKENIZER.to_owned(), tokenizer)] {
            match self.store.head(&path).await {
                Ok(meta) => files.push(RemoteFile { name, meta }),
                Err(Error::NotFound { .. }) => return Err(self.no_model(format!("{path} is missing"))),
                Err(error) => return Err(self.store_error(error)),
            }
        }
        Ok(files)
    }

    async fn list_folder(&self, folder: &Path) -> Result<Vec<RemoteFile>, BucketModelError> {
        let prefix = if folder.as_ref().is_empty() { String::new() } else { format!("{folder}/") };
        let (mut listing, mut found) = (self.store.list(Some(folder)), BTreeMap::new());
        while let Some(meta) = listing.try_next().await.map_err(|error| self.store_error(error))? {
            if let Some(name) = meta.location.as_ref().strip_prefix(&prefix) {
                found.insert(name.to_owned(), meta);
            }
            if found.len() > MAX_OBJECTS {
                return Err(self.no_model(format!("more than {MAX_OBJECTS} objects are below this address")));
            }
        }
        if found.is_empty() {
            return Err(self.no_model("nothing is there"));
        }
        let names: Vec<String> = found.keys().cloned().collect();
        let mut needed = needed_files(&names);
        if !needed.iter().any(|name| ANCHOR_FILES.contains(name)) {
            return Err(self.no_model(format!("it has none of {}", ANCHOR_FILES.join(", "))));
        }
        if let Some(name) = needed.iter().find(|name| !is_path_inside(name)) {
            return Err(self.no_model(format!("{name:?} is no path inside a folder")));
        }
        needed.sort_unstable();
        needed.dedup();
        let file = |name: &str| Some(RemoteFile { name: name.to_owned(), meta: found.get(name)?.clone() });
        Ok(needed.into_iter().filter_map(file).collect())
    }
}

/// Whether a key is that of a `.gguf` file.
pub(super) fn is_gguf(key: &str) -> bool {
    FilePath::new(key).extension().is_some_and(|extension| extension == "gguf") && !key.ends_with('/')
}

/// BLAKE3 of the listing's metadata of files, hexadecimal: it changes if the store has other files.
pub(super) fn listing_hash(files: &[RemoteFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for RemoteFile { name, meta } in files {
        // A store without entity tags shows a change by its time.
        let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
        let version = meta.version.as_deref().unwrap_or_default();
        hasher.update(format!("{name}\n{}\n{tag}\n{version}\n", meta.size).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
