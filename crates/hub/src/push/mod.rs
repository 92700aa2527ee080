//! Sends files to a dataset on the hub: the large ones to its storage, then all of them with one commit, so that a
//! reader sees all of them or none.

mod content;
mod large_files;

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::{Value, json};

pub use content::Content;

use crate::{
    client::{HubClient, Request},
    download::{Download, RemoteFile},
    error::HubError,
    tree::HubEntry,
};

/// The branch that is written.
const BRANCH: &str = "main";
/// The largest number of files in one request about uploads.
const MAX_BATCH: usize = 256;
/// Files that are hashed or sent at the same time.
const PARALLEL: usize = 4;
/// The folders of a table. Whatever else its folder contains is not the table's.
const PARTS: [&str; 5] = ["_versions/", "_transactions/", "_deletions/", "_indices/", "data/"];
/// The bytes at the beginning of a file from which the hub decides how it is stored.
const SAMPLE_BYTES: u64 = 512;

/// Whether a file's name may come back with another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The name is unique: a file of this name and size is this file.
    Unique,
    /// The name is used again: the contents are compared.
    Reused,
}

/// A file to send.
#[derive(Debug, Clone)]
pub struct PushFile {
    /// Its path in the dataset.
    pub path: String,
    /// Its bytes.
    pub content: Content,
    /// Whether its name identifies its content.
    pub naming: Naming,
}

/// Who can see a dataset that is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// As the hub decides for its owner: everybody, by default.
    Default,
    /// The owner only.
    Private,
}

/// A dataset before a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetState {
    /// Its newest commit.
    pub commit: String,
    /// Whether the push created the dataset.
    pub created: bool,
}

/// The outcome of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The dataset's newest commit.
    pub commit: String,
    /// The number of files that were sent.
    pub files_sent: usize,
    /// Their bytes.
    pub bytes_sent: u64,
    /// The number of files that the dataset had already.
    pub files_unchanged: usize,
    /// The number of files that were deleted.
    pub files_deleted: usize,
}

#[derive(Deserialize)]
struct UploadModes {
    files: Vec<UploadMode>,
}

#[derive(Deserialize)]
struct UploadMode {
    path: String,
    #[serde(rename = "uploadMode")]
    mode: String,
}

#[derive(Deserialize)]
struct Committed {
    #[serde(rename = "commitOid")]
    commit: String,
}

impl HubClient {
    /// The dataset before a push; it is created if there is none.
    ///
    /// # Errors
    /// [`HubError::NoToken`], [`HubError::Public`] for a public dataset where a private one is wanted, and those of the
    /// connection.
    pub async fn ensure_dataset(&self, visibility: Visibility) -> Result<DatasetState, HubError> {
        let dataset = || self.dataset().to_owned();
        if !self.has_token() {
            return Err(HubError::NoToken { dataset: dataset() });
        }
        match self.revision(BRANCH).await {
            Ok(found) if visibility == Visibility::Private && !found.private => {
                Err(HubError::Public { dataset: dataset() })
            }
            Ok(found) => Ok(DatasetState { commit: found.sha, created: false }),
            Err(HubError::NoDataset { .. }) => {
                let (owner, name) = self.dataset().split_once('/').unwrap_or_default();
                let mut body = json!({ "type": "dataset", "organization": owner, "name": name });
                if visibility == Visibility::Private {
                    body["private"] = json!(true);
                    body["visibility"] = json!("private");
                }
                self.send(&Request::post(self.url(["api", "repos", "create"]), &body).changing()).await?;
                Ok(DatasetState { commit: self.revision(BRANCH).await?.sha, created: true })
            }
            Err(error) => Err(error),
        }
    }

    /// A file of the dataset at a commit; `None` if there is none. It is read whole.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn read(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>, HubError> {
        let found = self.find_paths(commit, &[path]).await?;
        let size = found.into_iter().find_map(|entry| match entry {
            HubEntry::File(file) if file.path == path => Some(file.size),
            _ => None,
        });
        let Some(size) = size else { return Ok(None) };
        let file = RemoteFile { client: self.clone(), commit: commit.to_owned(), path: path.to_owned() };
        let (mut download, _) = Download::start(file, None).await?;
        download.end_at(size);
        Ok(Some(download.bytes().await?))
    }

    /// Makes the files those of the table in a folder of the dataset, with one commit. Files of the table that are not
    /// sent are deleted; others in the folder stay, and files outside it are added or replaced.
    ///
    /// # Errors
    /// [`HubError::Occupied`] for a folder with files but no table, [`HubError::Upload`], [`HubError::Moved`] when
    /// another push was faster, [`HubError::Unconfirmed`], and those of the connection.
    pub async fn push(
        &self,
        state: &DatasetState,
        folder: &str,
        files: Vec<PushFile>,
        summary: &str,
    ) -> Result<Pushed, HubError> {
        let mut present = BTreeMap::new();
        let mut entries = std::pin::pin!(self.tree(&state.commit, ""));
        while let Some(entry) = entries.try_next().await? {
            if let HubEntry::File(file) = entry {
                present.insert(file.path.clone(), file);
            }
        }
        let inside = format!("{folder}/");
        let mut in_folder = present.keys().filter_map(|path| path.strip_prefix(&inside)).peekable();
        if in_folder.peek().is_some() && !in_folder.any(|path| path.starts_with("_versions/")) {
            return Err(HubError::Occupied { dataset: self.dataset().to_owned(), folder: folder.to_owned() });
        }
        let is_of_table =
            |path: &str| path.strip_prefix(&inside).is_some_and(|path| PARTS.iter().any(|part| path.starts_with(part)));
        let sent: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let deleted: Vec<String> =
            present.keys().filter(|path| is_of_table(path) && !sent.contains(path.as_str())).cloned().collect();
        let total = files.len();
        let checked = stream::iter(files.into_iter().map(|file| {
            let found = present.get(&file.path).cloned();
            async move {
                let is_same = match found {
                    Some(found) if found.size != file.content.size() => false,
                    Some(_) if file.naming == Naming::Unique => true,
                    Some(found) => {
                        file.content.hash_like(&found.hash).await.map_err(|error| self.upload(&file.path, error))?
                            == found.hash
                    }
                    None => false,
                };
                Ok::<_, HubError>((!is_same).then_some(file))
            }
        }));
        let new: Vec<PushFile> = checked.buffered(PARALLEL).try_filter_map(async |file| Ok(file)).try_collect().await?;
        if new.is_empty() && deleted.is_empty() {
            let commit = state.commit.clone();
            return Ok(Pushed { commit, files_sent: 0, bytes_sent: 0, files_unchanged: total, files_deleted: 0 });
        }
        let mut lines = vec![json!({
            "key": "header",
            "value": { "summary": summary, "description": "", "parentCommit": state.commit },
        })];
        lines.extend(deleted.iter().map(|path| json!({ "key": "deletedFile", "value": { "path": path } })));
        let bytes_sent = new.iter().map(|file| file.content.size()).sum();
        for batch in new.chunks(MAX_BATCH) {
            lines.extend(self.send_batch(batch).await?);
        }
        let commit = self.send_commit(&lines).await?;
        let (files_sent, files_deleted) = (new.len(), deleted.len());
        Ok(Pushed { commit, files_sent, bytes_sent, files_unchanged: total - files_sent, files_deleted })
    }

    /// Sends the large ones of the files, and returns the lines of all for the commit.
    async fn send_batch(&self, files: &[PushFile]) -> Result<Vec<Value>, HubError> {
        let mut described = Vec::with_capacity(files.len());
        for file in files {
            let size = file.content.size();
            let sample = file.content.read(0..SAMPLE_BYTES.min(size)).await;
            let sample = BASE64_STANDARD.encode(sample.map_err(|error| self.upload(&file.path, error))?);
            described.push(json!({ "path": file.path, "size": size, "sample": sample }));
        }
        let request = Request::post(self.api(["preupload", BRANCH]), &json!({ "files": described }));
        let (modes, _): (UploadModes, _) = self.json(&request).await?;
        let is_large = |file: &PushFile| {
            // The storage for large files takes no empty ones.
            file.content.size() > 0 && modes.files.iter().any(|mode| mode.path == file.path && mode.mode == "lfs")
        };
        let mut lines = Vec::with_capacity(files.len());
        for file in files.iter().filter(|file| !is_large(file)) {
            let bytes = file.content.read(0..file.content.size()).await;
            let bytes = bytes.map_err(|error| self.upload(&file.path, error))?;
            let content = BASE64_STANDARD.encode(bytes);
            lines.push(json!({
                "key": "file",
                "value": { "path": file.path, "content": content, "encoding": "base64" },
            }));
        }
        let large: Vec<&PushFile> = files.iter().filter(|file| is_large(file)).collect();
        for (file, hash) in self.send_large(&large).await? {
            lines.push(json!({
                "key": "lfsFile",
                "value": { "path": file.path, "algo": "sha256", "oid": hash, "size": file.content.size() },
            }));
        }
        Ok(lines)
    }

    async fn send_commit(&self, lines: &[Value]) -> Result<String, HubError> {
        let body: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        let request = Request {
            method: Method::POST,
            url: self.api(["commit", BRANCH]),
            headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))],
            body: Bytes::from(body.concat()),
            is_change: true,
        };
        match self.json::<Committed>(&request).await {
            Ok((committed, _)) => Ok(committed.commit),
            Err(HubError::Status { dataset, status: 409 | 412, .. }) => Err(HubError::Moved { dataset }),
            Err(error) => Err(error),
        }
    }

    fn upload(&self, path: &str, error: impl std::fmt::Display) -> HubError {
        HubError::Upload { dataset: self.dataset().to_owned(), path: path.to_owned(), message: error.to_string() }
    }
}
