//! The cache of models in object storage.
//!
//! `$XDG_CACHE_HOME/polylance/models/ADDRESS/LISTING/` is one state of one model; both names are hashes. It has the
//! files in `files/` and their hashes in `manifest.json`. A state is complete: it is written in a folder of another
//! name, synced, and renamed. `ADDRESS/latest` names the state that was used last, for times without the store.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use polylance_encoder::ModelFiles;
use tempfile::{NamedTempFile, TempDir};

use super::{
    CopyCheck,
    download::on_blocking_thread,
    error::BucketModelError,
    manifest::{CachedFile, Manifest},
};
use crate::models::user_folder::cache_folder;

/// How a folder that is being written begins.
const PARTIAL_PREFIX: &str = ".part-";
const MANIFEST: &str = "manifest.json";
const FILES: &str = "files";
const LATEST: &str = "latest";
/// Time between two attempts to get the lock that another process has.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// The cached states of one model.
#[derive(Debug, Clone)]
pub(super) struct ModelCache {
    /// The address without a password.
    model: String,
    /// The path of the `.gguf` file in a state's files; empty for a folder.
    entry: String,
    folder: PathBuf,
}

/// The right to change the cache of a model. Other processes wait until it is dropped.
#[derive(Debug)]
pub(super) struct CacheLock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

/// A state that is being written. It is removed when it is dropped.
#[derive(Debug)]
pub(super) struct PartialState {
    folder: TempDir,
}

impl ModelCache {
    /// The cache of a model in the user's cache folder.
    pub(super) fn of_user(model: &str, entry: &str) -> Result<Self, BucketModelError> {
        let folder = cache_folder().ok_or_else(|| BucketModelError::NoCache { model: model.to_owned() })?;
        Ok(Self::new(&folder.join("models"), model, entry))
    }

    pub(super) fn new(root: &Path, model: &str, entry: &str) -> Self {
        let name = blake3::hash(model.trim_end_matches('/').as_bytes()).to_hex();
        Self { model: model.to_owned(), entry: entry.to_owned(), folder: root.join(name.as_str()) }
    }

    fn error(&self, path: &Path, source: io::Error) -> BucketModelError {
        BucketModelError::Cache { model: self.model.clone(), path: path.to_owned(), source }
    }

    fn model_in(&self, state: &Path) -> PathBuf {
        let files = state.join(FILES);
        if self.entry.is_empty() { files } else { files.join(&self.entry) }
    }

    /// The model in a state; `None` if the state is not there, or its files are not those that were fetched.
    pub(super) async fn open(&self, state: &str, check: CopyCheck) -> Result<Option<ModelFiles>, BucketModelError> {
        let (own, state) = (self.clone(), self.folder.join(state));
        let folder = state.clone();
        let open = move || Ok(own.open_blocking(&state, check).transpose());
        let opened = on_blocking_thread(open).await.map_err(|error| self.error(&folder, error))?;
        opened.transpose()
    }

    fn open_blocking(&self, state: &Path, check: CopyCheck) -> Result<Option<ModelFiles>, BucketModelError> {
        let Some(manifest) = Manifest::read(&state.join(MANIFEST)) else { return Ok(None) };
        if !manifest.matches(&state.join(FILES)) {
            return Ok(None);
        }
        let unusable = |error| BucketModelError::Files { model: self.model.clone(), source: Box::new(error) };
        let files = ModelFiles::at(&self.model, &self.model_in(state)).map_err(unusable)?;
        if check == CopyCheck::Weights
            && let Some(hash) = manifest.weights_hash
            && files.weights_hash().map_err(unusable)? != hash
        {
            return Ok(None);
        }
        Ok(Some(files))
    }

    /// The state that was used last.
    pub(super) fn latest(&self) -> Option<String> {
        let state = fs::read_to_string(self.folder.join(LATEST)).ok()?;
        // The name of a state is a hash.
        state.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(state)
    }

    /// Records the state that is used.
    pub(super) fn set_latest(&self, state: &str) {
        if self.latest().as_deref() == Some(state) {
            return;
        }
        let write = || {
            let mut file = NamedTempFile::new_in(&self.folder)?;
            file.write_all(state.as_bytes())?;
            file.persist(self.folder.join(LATEST))?;
            Ok::<_, io::Error>(())
        };
        if let Err(error) = write() {
            tracing::warn!(model = self.model, %error, "the cache does not record which state of the model is used");
        }
    }

    /// Waits until no other process changes the cache of the model.
    pub(super) async fn lock(&self) -> Result<CacheLock, BucketModelError> {
        let path = self.folder.join("lock");
        let refuse = |error| self.error(&path, error);
        fs::create_dir_all(&self.folder).map_err(refuse)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(refuse)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(CacheLock(file)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(refuse(error)),
            }
        }
    }

    /// Begins to write a state, and removes those that ended processes left incomplete.
    pub(super) fn begin(&self, _lock: &CacheLock) -> Result<PartialState, BucketModelError> {
        let begin = || {
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            tempfile::Builder::new().prefix(PARTIAL_PREFIX).tempdir_in(&self.folder)
        };
        let folder = begin().map_err(|error| self.error(&self.folder, error))?;
        Ok(PartialState { folder })
    }

    /// The error of a state that does not have the fetched bytes right after they were written.
    pub(super) fn damaged(&self, state: &str) -> BucketModelError {
        self.error(&self.folder.join(state), io::Error::other("its files are not those that were written"))
    }

    /// Completes a state whose files were all fetched, with their hashes. The lock is kept until that is done, even if
    /// nothing waits for it any more.
    pub(super) async fn complete(
        &self,
        lock: CacheLock,
        partial: PartialState,
        files: Vec<(String, String)>,
        state: &str,
    ) -> Result<(), BucketModelError> {
        let (own, to) = (self.clone(), self.folder.join(state));
        let target = to.clone();
        let complete = move || {
            let completed = own.complete_blocking(partial, &files, &to);
            drop(lock);
            completed
        };
        on_blocking_thread(complete).await.map_err(|error| self.error(&target, error))
    }

    fn complete_blocking(&self, partial: PartialState, files: &[(String, String)], to: &Path) -> io::Result<()> {
        let folder = partial.folder.path();
        let mut cached = Vec::with_capacity(files.len());
        for (name, blake3) in files {
            let path = partial.path(name);
            cached.push(CachedFile::new(name, &path, blake3.clone())?);
            path.parent().map_or(Ok(()), sync_folder)?;
        }
        // Files that are no model are an error of the model, which is reported when it is opened.
        let opened = ModelFiles::at(&self.model, &self.model_in(folder));
        let weights_hash = opened.and_then(|files| files.weights_hash()).ok();
        let manifest = Manifest { model: self.model.clone(), weights_hash, files: cached };
        manifest.write(&folder.join(MANIFEST))?;
        sync_folder(&folder.join(FILES))?;
        sync_folder(folder)?;
        if to.exists() {
            // It is damaged. Under this name it is removed even if this process ends now.
            let damaged = tempfile::Builder::new().prefix(PARTIAL_PREFIX).tempdir_in(&self.folder)?;
            fs::rename(to, damaged.path())?;
        }
        fs::rename(folder, to)?;
        let _renamed = partial.folder.keep();
        sync_folder(&self.folder)
    }
}

impl PartialState {
    /// Where a file is written.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(FILES).join(name)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
