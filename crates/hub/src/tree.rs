//! Listings of a dataset at one commit.

use futures::{Stream, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::{
    client::{HubClient, Request},
    error::HubError,
};

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// Its path in the dataset.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The hash of its content: SHA-256 of a large file, git's hash of a small one.
    pub hash: String,
}

/// A path in a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubEntry {
    /// A file.
    File(HubFile),
    /// A folder.
    Folder {
        /// Its path in the dataset.
        path: String,
    },
}

#[derive(Deserialize)]
pub(crate) struct Revision {
    pub(crate) sha: String,
    #[serde(default)]
    pub(crate) private: bool,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    oid: String,
    size: u64,
}

impl TreeEntry {
    fn entry(self) -> HubEntry {
        if self.kind == "directory" {
            return HubEntry::Folder { path: self.path };
        }
        let (hash, size) = match self.lfs {
            Some(large) => (large.oid, large.size),
            None => (self.oid, self.size),
        };
        HubEntry::File(HubFile { path: self.path, size, hash })
    }
}

impl HubClient {
    /// The commit that a revision stands for.
    ///
    /// # Errors
    /// [`HubError::NoDataset`], [`HubError::NoRevision`], [`HubError::Refused`], and those of the connection.
    pub async fn commit(&self, revision: &str) -> Result<String, HubError> {
        Ok(self.revision(revision).await?.sha)
    }

    pub(crate) async fn revision(&self, revision: &str) -> Result<Revision, HubError> {
        let (found, _): (Revision, _) = self.json(&Request::get(self.api(["revision", revision]))).await?;
        let is_hash = (1..=64).contains(&found.sha.len()) && found.sha.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_hash { Ok(found) } else { Err(self.malformed(format!("{:?} is no commit", found.sha))) }
    }

    /// The entries below a folder at a commit, folders within folders included, page by page. A folder that does not
    /// exist has none.
    pub fn tree(&self, commit: &str, folder: &str) -> impl Stream<Item = Result<HubEntry, HubError>> + Send + use<'_> {
        let parts = ["tree", commit].into_iter().chain(folder.split('/').filter(|part| !part.is_empty()));
        let mut url = self.api(parts);
        url.set_query(Some("recursive=true&expand=false"));
        let pages = stream::try_unfold(Some(url), move |next| async move {
            let Some(url) = next else { return Ok(None) };
            let (entries, next) = match self.tree_page(url).await {
                Err(HubError::NoFile { .. }) => (Vec::new(), None),
                page => page?,
            };
            Ok::<_, HubError>(Some((stream::iter(entries.into_iter().map(Ok)), next)))
        });
        pages.try_flatten()
    }

    async fn tree_page(&self, url: Url) -> Result<(Vec<HubEntry>, Option<Url>), HubError> {
        let (entries, headers): (Vec<TreeEntry>, _) = self.json(&Request::get(url)).await?;
        Ok((entries.into_iter().map(TreeEntry::entry).collect(), self.next_page(&headers)))
    }

    /// Those of the paths that exist at a commit.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn find_paths(&self, commit: &str, paths: &[&str]) -> Result<Vec<HubEntry>, HubError> {
        let request = Request::post(self.api(["paths-info", commit]), &json!({ "paths": paths, "expand": false }));
        let (entries, _): (Vec<TreeEntry>, _) = self.json(&request).await?;
        Ok(entries.into_iter().map(TreeEntry::entry).collect())
    }
}
