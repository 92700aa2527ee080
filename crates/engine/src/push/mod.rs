//! Sends a table to a dataset on the Hugging Face hub, with a card.

mod card;

use std::sync::Arc;

use polylance_hub::{Content, HubAddress, HubClient, Naming, PushFile, Visibility};
use polylance_search::describe;
use polylance_sink::{distinct_texts, version_files};
use serde::Serialize;

use crate::{EngineError, UsageError};

/// The card of a dataset.
const CARD: &str = "README.md";
/// The column with languages, where a table has it.
const LANGUAGE: &str = "lang";
/// The largest number of languages in a card.
const MAX_LANGUAGES: usize = 500;

/// A table to send, and where to.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The address of the table.
    pub table: String,
    /// `hf://datasets/OWNER/NAME`, or a path in it for the table.
    pub target: String,
    /// Who can see a dataset that is created.
    pub visibility: Visibility,
    /// The licence for a new card, as the hub writes it, such as `cc-by-4.0`.
    pub license: Option<String>,
}

/// The outcome of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PushSummary {
    /// The address of the table on the hub.
    pub table: String,
    /// The version of the table that was sent.
    pub version: u64,
    /// The dataset's newest commit.
    pub commit: String,
    /// Whether the dataset was created.
    pub created: bool,
    /// The number of files that were sent.
    pub files_sent: usize,
    /// Their bytes.
    pub bytes_sent: u64,
    /// The number of files that the dataset had already.
    pub files_unchanged: usize,
    /// The number of files of older versions that were removed.
    pub files_deleted: usize,
}

/// Sends the newest version of a table, its indices and a card, with one commit. Files that the dataset has already are
/// not sent again.
///
/// # Errors
/// [`EngineError::Usage`] for a target that is no place on the hub's main branch, [`EngineError::Sink`],
/// [`EngineError::Search`] and [`EngineError::Hub`].
pub async fn push(request: &PushRequest) -> Result<PushSummary, EngineError> {
    let address = HubAddress::parse(&request.target)?;
    if address.revision() != "main" {
        let message = format!("`{}`: a table is sent to the branch `main`: leave the revision out", request.target);
        return Err(UsageError::new(message).into());
    }
    let folder = folder(&request.table, address.path())?;
    let description = Box::pin(describe(&request.table)).await?;
    let version = version_files(&request.table).await?;
    let languages = distinct_texts(&request.table, LANGUAGE, MAX_LANGUAGES).await?;
    let client = HubClient::from_env(address.dataset())?;
    let state = client.ensure_dataset(request.visibility).await?;
    let place = format!("{}/{folder}", address.root());
    let mut files: Vec<PushFile> = version
        .files
        .into_iter()
        .map(|file| PushFile {
            path: format!("{folder}/{}", file.name),
            naming: if file.is_unique { Naming::Unique } else { Naming::Reused },
            content: Content::Object { store: Arc::clone(&version.store), path: file.path, size: file.size },
        })
        .collect();
    let card = card::Card {
        description: &description,
        address: &place,
        folder: &folder,
        languages: &languages,
        license: request.license.as_deref(),
    };
    let old = client.read(&state.commit, CARD).await?;
    let old = old.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if let Some(text) = card.updated(old.as_deref()) {
        files.push(PushFile { path: CARD.to_owned(), naming: Naming::Reused, content: Content::Text(text.into()) });
    }
    let summary = format!("Add version {} of {folder}", version.version);
    let pushed = client.push(&state, &folder, files, &summary).await?;
    Ok(PushSummary {
        table: place,
        version: version.version,
        commit: pushed.commit,
        created: state.created,
        files_sent: pushed.files_sent,
        bytes_sent: pushed.bytes_sent,
        files_unchanged: pushed.files_unchanged,
        files_deleted: pushed.files_deleted,
    })
}

/// The folder of the table in the dataset: the given one, or the table's own name.
fn folder(table: &str, path: &str) -> Result<String, UsageError> {
    let path = path.trim_matches('/');
    let name = table.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let folder = if path.is_empty() { name } else { path };
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.starts_with('_');
    if folder.split('/').all(is_plain) && !folder.contains(|c: char| c.is_control() || "*?[]{}\\#%".contains(c)) {
        Ok(folder.to_owned())
    } else {
        Err(UsageError::new(format!("`{folder}` cannot be the folder of a table: name one after the dataset's name")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_keeps_its_name_unless_the_target_has_one() {
        for (table, path, expected) in [
            ("out/docs.lance", "", "docs.lance"),
            ("s3://tables/docs.lance/", "", "docs.lance"),
            ("docs.lance", "data/train.lance/", "data/train.lance"),
        ] {
            assert_eq!(folder(table, path).unwrap(), expected);
        }
        for path in ["../x", "a//b", "_versions", "*.lance", "a#b", "a%2Fb"] {
            assert!(folder("docs.lance", path).is_err(), "{path}");
        }
    }
}
