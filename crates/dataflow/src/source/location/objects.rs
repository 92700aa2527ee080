//! Sources in an object store: an object, all objects below a prefix, or a glob.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};

use super::{
    glob::FileFilter,
    listing::{Listing, ListingBudget},
    object_address::ObjectAddress,
    odd_keys,
};
use crate::{
    error::SourceError,
    source::{
        file::{FileState, SourceFile},
        uri::is_glob,
    },
};

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
pub(super) async fn find(
    uri: &str,
    place: ObjectAddress<'_>,
    memory: u64,
) -> Result<(Arc<dyn ObjectStore>, Listing), SourceError> {
    let refuse = |message: String| SourceError::Uri { uri: uri.to_owned(), message };
    let store = place.open().await.map_err(refuse)?;
    let address = place.public_root().map_err(refuse)?;
    let key = place.key();
    let bucket = Bucket { uri, store, root: place.root(), address, memory };

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
