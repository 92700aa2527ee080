//! Sources in an object store: an object, all objects below a prefix, or a glob.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use url::Url;

use super::{
    glob::FileFilter,
    listing::{Listing, ListingBudget},
    odd_keys,
};
use crate::{
    error::SourceError,
    source::{
        file::{FileState, SourceFile},
        uri::is_glob,
    },
};

/// The schemes of stores that Lance opens too.
pub(super) const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// A bucket, and the source in it.
struct Bucket<'a> {
    /// The URI as it was given.
    uri: &'a str,
    store: Arc<dyn ObjectStore>,
    /// The scheme and the bucket, as Lance opens them.
    root: &'a str,
    /// The part of an address before the key.
    address: String,
    /// The bytes that the listing may take.
    memory: u64,
}

/// The store of a URI and the files that the URI names.
pub(super) async fn find(uri: &str, memory: u64) -> Result<(Arc<dyn ObjectStore>, Listing), SourceError> {
    let refuse = |message: &dyn Display| SourceError::Uri { uri: uri.to_owned(), message: without_secrets(message) };
    let (root, key) = split(uri);
    // Opened like the table, so that one set of keys, profiles and endpoints serves both.
    let (store, _) = lance_io::object_store::ObjectStore::from_uri(root).await.map_err(|error| refuse(&error))?;
    let address = public_root(uri, root)?;
    let bucket = Bucket { uri, store: Arc::clone(&store.inner), root, address, memory };

    let key = key.strip_prefix('/').unwrap_or_default();
    let mut found = bucket.named(key).await?;
    // Keys are written as the store's own tools print them. Links from elsewhere may have them encoded.
    if found.files.is_empty() && key.contains('%') {
        let decoded = Path::from_url_path(key).map(String::from).unwrap_or_default();
        if !decoded.is_empty() {
            let slash = if key.ends_with('/') { "/" } else { "" };
            found = bucket.named(&format!("{decoded}{slash}")).await?;
        }
    }
    if found.files.is_empty() && is_glob(key) {
        found = bucket.globbed(key).await?;
    }
    Ok((bucket.store, found))
}

/// The scheme and the bucket of a URI, and the rest.
fn split(uri: &str) -> (&str, &str) {
    let start = uri.find("://").map_or(0, |at| at + 3);
    uri.split_at(uri[start..].find('/').map_or(uri.len(), |at| start + at))
}

/// The scheme and the bucket without a password: addresses are written to the quarantine.
fn public_root(uri: &str, root: &str) -> Result<String, SourceError> {
    let refuse = |error: url::ParseError| SourceError::Uri { uri: uri.to_owned(), message: without_secrets(&error) };
    let mut url = Url::parse(root).map_err(refuse)?;
    // Not every kind of URL can have one.
    let _ = (url.set_username(""), url.set_password(None));
    Ok(url[..url::Position::BeforePath].to_owned())
}

/// A URI as messages and the quarantine may show it.
pub(super) fn address(uri: &str) -> Result<String, SourceError> {
    let (root, key) = split(uri);
    Ok(format!("{}{key}", public_root(uri, root)?))
}

/// A store's message without the values of options that it may quote.
fn without_secrets(message: &dyn Display) -> String {
    message.to_string().split(['\n', '=']).next().unwrap_or_default().to_owned()
}

impl Bucket<'_> {
    fn storage(&self, source: Error) -> SourceError {
        SourceError::Storage { uri: self.uri.to_owned(), source }
    }

    fn parse(&self, key: &str) -> Result<Path, SourceError> {
        let message = |_| odd_keys::REASON.to_owned();
        Path::parse(key).map_err(|error| SourceError::Uri { uri: self.uri.to_owned(), message: message(error) })
    }

    /// The object of this key, or everything below it.
    async fn named(&self, key: &str) -> Result<Listing, SourceError> {
        let path = self.parse(key)?;
        if !key.ends_with('/') && !key.is_empty() {
            match self.store.head(&path).await {
                Ok(meta) => return Ok(Listing { files: vec![self.file(meta)], ..Listing::default() }),
                // A folder has no head; some stores return another error than "not found" for it.
                Err(Error::NotFound { .. } | Error::Generic { .. }) => {}
                Err(error) => return Err(self.storage(error)),
            }
        }
        // Folders rarely have wildcards in their names: one object shows whether there is one.
        if is_glob(key) && !self.has_any(&path).await? {
            return Ok(Listing::default());
        }
        self.below(&path, &FileFilter::default()).await
    }

    /// The objects below the part without wildcards that match the rest.
    async fn globbed(&self, key: &str) -> Result<Listing, SourceError> {
        let (mut folder, mut rest) = (String::new(), key);
        while let Some((part, after)) = rest.split_once('/') {
            let next = if folder.is_empty() { part.to_owned() } else { format!("{folder}/{part}") };
            // A part that exists under exactly this name is no pattern.
            if is_glob(part) && !self.has_any(&self.parse(&next)?).await? {
                break;
            }
            (folder, rest) = (next, after);
        }
        self.below(&self.parse(&folder)?, &FileFilter::matching(self.uri, rest)?).await
    }

    async fn has_any(&self, folder: &Path) -> Result<bool, SourceError> {
        match self.store.list(Some(folder)).next().await {
            Some(Ok(_) | Err(Error::InvalidPath { .. })) => Ok(true),
            Some(Err(error)) => Err(self.storage(error)),
            None => Ok(false),
        }
    }

    /// The selected objects below a folder, by their keys in rising order.
    async fn below(&self, folder: &Path, filter: &FileFilter) -> Result<Listing, SourceError> {
        let mut files = match self.listed(self.store.as_ref(), folder, filter).await {
            // One key that cannot be a path fails the whole listing.
            Err(SourceError::Storage { source: Error::InvalidPath { source }, .. }) => {
                let odd = Arc::new(Mutex::new(Vec::new()));
                let Some(lister) = odd_keys::lister(self.root, &odd).await else {
                    return Err(self.storage(Error::InvalidPath { source }));
                };
                let mut files = self.listed(lister.as_ref(), folder, filter).await?;
                let odd = std::mem::take(&mut *odd.lock().unwrap_or_else(PoisonError::into_inner));
                let odd = odd.into_iter().filter(|key| filter.has(inner(folder, key)));
                let unreadable =
                    |key| SourceFile::unreadable(format!("{}/{key}", self.address), odd_keys::REASON.to_owned());
                files.extend(odd.map(unreadable));
                files
            }
            files => files?,
        };
        files.sort_by(|a, b| a.uri.cmp(&b.uri));
        let slash = if folder.as_ref().is_empty() { "" } else { "/" };
        let scope = filter.scope(format!("{}/{folder}{slash}", self.address));
        Ok(Listing { files, scope, ..Listing::default() })
    }

    /// The selected objects that a store lists below a folder, within the memory of the listing.
    async fn listed(
        &self,
        store: &dyn ObjectStore,
        folder: &Path,
        filter: &FileFilter,
    ) -> Result<Vec<SourceFile>, SourceError> {
        let (mut objects, mut budget) = (store.list(Some(folder)), ListingBudget::new(self.memory));
        let mut files = Vec::new();
        while let Some(meta) = objects.try_next().await.map_err(|error| self.storage(error))? {
            // Some stores have an empty object in place of a folder.
            if meta.location == *folder || !filter.has(inner(folder, meta.location.as_ref())) {
                continue;
            }
            let file = self.file(meta);
            if !budget.reserve(&file) {
                return Err(budget.error(self.uri));
            }
            files.push(file);
        }
        Ok(files)
    }

    fn file(&self, meta: ObjectMeta) -> SourceFile {
        let ObjectMeta { location: path, last_modified, size, e_tag, version } = meta;
        let state = Some(FileState { modified: Some(last_modified), e_tag, version });
        SourceFile { uri: format!("{}/{path}", self.address), path, size, state, unreadable: None }
    }
}

/// A key relative to a folder above it.
fn inner<'k>(folder: &Path, key: &'k str) -> &'k str {
    let below = key.strip_prefix(folder.as_ref()).unwrap_or(key);
    if folder.as_ref().is_empty() { below } else { below.trim_start_matches('/') }
}
