//! Addresses of datasets: `hf://datasets/OWNER/NAME[@REVISION][/PATH]`.

use std::fmt;

use crate::error::HubError;

/// The scheme of the hub.
const SCHEME: &str = "hf://";
/// The revision of an address without one.
const DEFAULT_REVISION: &str = "main";

/// Whether an address is on the hub.
pub fn is_hub(uri: &str) -> bool {
    uri.starts_with(SCHEME)
}

/// A dataset on the hub, and a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubAddress {
    dataset: String,
    revision: Option<String>,
    path: String,
}

impl HubAddress {
    /// The parts of `hf://datasets/OWNER/NAME[@REVISION][/PATH]`. A revision is a branch, a tag, a commit, or
    /// `refs/convert/parquet` and `refs/pr/1`, whose slashes may be written as `%2F`.
    ///
    /// # Errors
    /// [`HubError::Address`].
    pub fn parse(uri: &str) -> Result<Self, HubError> {
        let refuse = |message: &'static str| HubError::Address { uri: uri.to_owned(), message };
        let rest = uri.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix("datasets/"));
        let rest = rest.ok_or_else(|| refuse("an address on the hub begins with hf://datasets/OWNER/NAME"))?;
        let whole = || refuse("an address on the hub has an owner and a name: hf://datasets/OWNER/NAME");
        let (owner, rest) = rest.split_once('/').ok_or_else(whole)?;
        let name_end = rest.find(['/', '@']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(name_end);
        if !is_name(owner) || !is_name(name) {
            return Err(whole());
        }
        let (revision, path) = match rest.strip_prefix('@') {
            Some(rest) => {
                // The names of these revisions have three parts.
                let parts = if rest.starts_with("refs/") { 3 } else { 1 };
                let end = rest.match_indices('/').nth(parts - 1).map_or(rest.len(), |(at, _)| at);
                (Some(rest[..end].replace("%2F", "/").replace("%2f", "/")), &rest[end..])
            }
            None => (None, rest),
        };
        if revision.as_deref().is_some_and(|revision| !is_revision(revision)) {
            return Err(refuse("the revision after `@` is a branch, a tag or a commit"));
        }
        let path = path.strip_prefix('/').unwrap_or(path).to_owned();
        Ok(Self { dataset: format!("{owner}/{name}"), revision, path })
    }

    /// `OWNER/NAME`.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The revision; `main` unless the address has one.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The path in the dataset, as it was written; empty for the whole dataset.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The address of the whole dataset at the revision, without a slash at the end.
    pub fn root(&self) -> String {
        // The slashes of these revisions cannot be taken for those of a path.
        let is_reference = |revision: &str| revision.starts_with("refs/") && revision.split('/').count() == 3;
        let written = |revision: &str| {
            if is_reference(revision) { revision.to_owned() } else { revision.replace('/', "%2F") }
        };
        let revision = self.revision.as_deref().map(|revision| format!("@{}", written(revision)));
        format!("{SCHEME}datasets/{}{}", self.dataset, revision.unwrap_or_default())
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.path.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.root(), self.path)
    }
}

/// Whether a text can be the name of an owner or of a dataset.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 96 && !name.starts_with('.') && name.chars().all(plain)
}

fn is_revision(revision: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    !revision.contains(|c: char| c.is_control() || c.is_whitespace()) && revision.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_into_dataset_revision_and_path() {
        for (uri, dataset, revision, path) in [
            ("hf://datasets/org/news", "org/news", "main", ""),
            ("hf://datasets/org/news/", "org/news", "main", ""),
            ("hf://datasets/org/news/data/**/*.parquet", "org/news", "main", "data/**/*.parquet"),
            ("hf://datasets/org/news@v1.0/a@b.csv", "org/news", "v1.0", "a@b.csv"),
            ("hf://datasets/org/news@refs/convert/parquet/x/y", "org/news", "refs/convert/parquet", "x/y"),
            ("hf://datasets/org/news@refs%2Fpr%2F1", "org/news", "refs/pr/1", ""),
            ("hf://datasets/org/news@feature%2Fx/y", "org/news", "feature/x", "y"),
        ] {
            let address = HubAddress::parse(uri).unwrap();
            assert_eq!((address.dataset(), address.revision(), address.path()), (dataset, revision, path), "{uri}");
            assert_eq!(HubAddress::parse(&address.to_string()).unwrap(), address, "{uri}");
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for uri in [
            "hf://org/model/config.json",
            "hf://datasets/news",
            "hf://datasets//news",
            "hf://datasets/../news",
            "hf://datasets/org/news@/x",
            "hf://datasets/org/news@../x",
            "hf://datasets/org/ne ws",
        ] {
            let error = HubAddress::parse(uri).unwrap_err();
            assert!(error.to_string().contains(uri), "{error}");
        }
    }
}
