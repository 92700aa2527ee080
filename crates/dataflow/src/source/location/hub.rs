//! Sources on the Hugging Face hub: the data files of a dataset, of a folder in it or of a glob, at one commit.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, path::Path};
use polylance_hub::{HubAddress, HubEntry, HubFile, HubStore};

use super::{
    glob::FileFilter,
    listing::{Listing, ListingBudget},
    odd_keys,
};
use crate::{
    error::SourceError,
    read::format::named_format,
    source::{
        file::{FileState, SourceFile},
        uri::is_glob,
    },
};

/// A dataset at a commit, and the source in it.
struct Dataset<'a> {
    /// The URI as it was given.
    uri: &'a str,
    store: HubStore,
    /// The address of the dataset with its revision.
    root: String,
    /// The bytes that the listing may take.
    memory: u64,
}

/// The dataset of a URI at the present commit of its revision, and the files that the URI names.
pub(super) async fn find(uri: &str, memory: u64) -> Result<(Arc<dyn ObjectStore>, Listing), SourceError> {
    let address = HubAddress::parse(uri)?;
    let dataset = Dataset { uri, store: HubStore::open(&address).await?, root: address.root(), memory };
    let found = dataset.find(address.path().trim_end_matches('/')).await?;
    Ok((Arc::new(dataset.store), found))
}

impl Dataset<'_> {
    async fn find(&self, path: &str) -> Result<Listing, SourceError> {
        if path.is_empty() {
            return self.below("", &FileFilter::default(), named_format_only).await;
        }
        // A part that exists under exactly this name is no pattern.
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let prefixes: Vec<&str> = ends.map(|end| &path[..end]).collect();
        let candidates: Vec<&str> =
            prefixes.iter().copied().filter(|prefix| is_glob(prefix) || *prefix == path).collect();
        let existing = self.store.client().find_paths(self.store.commit(), &candidates).await?;
        let (mut folder, mut rest) = ("", path);
        for prefix in prefixes {
            let entry = existing.iter().find(|entry| match entry {
                HubEntry::File(HubFile { path, .. }) | HubEntry::Folder { path } => path == prefix,
            });
            match entry {
                Some(HubEntry::File(file)) if prefix == path => {
                    return Ok(Listing { files: vec![self.file(file)], ..Listing::default() });
                }
                Some(HubEntry::Folder { .. }) if prefix == path => {
                    return self.below(path, &FileFilter::default(), named_format_only).await;
                }
                None if is_glob(prefix) => break,
                _ => {}
            }
            if prefix == path {
                return Ok(Listing::default());
            }
            (folder, rest) = (prefix, &path[prefix.len() + 1..]);
        }
        self.below(folder, &FileFilter::matching(self.uri, rest)?, |_| true).await
    }

    /// The selected files below a folder, by their paths in rising order.
    async fn below(
        &self,
        folder: &str,
        filter: &FileFilter,
        is_data: fn(&str) -> bool,
    ) -> Result<Listing, SourceError> {
        let base = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let (mut files, mut budget) = (Vec::new(), ListingBudget::new(self.memory));
        let mut entries = std::pin::pin!(self.store.client().tree(self.store.commit(), folder));
        while let Some(entry) = entries.try_next().await? {
            let HubEntry::File(file) = entry else { continue };
            let Some(inner) = file.path.strip_prefix(&base) else { continue };
            if !filter.has(inner) || !is_data(inner) {
                continue;
            }
            let file = self.file(&file);
            if !budget.reserve(&file) {
                return Err(budget.error(self.uri));
            }
            files.push(file);
        }
        files.sort_by(|a, b| a.uri.cmp(&b.uri));
        Ok(Listing { files, scope: filter.scope(format!("{}/{base}", self.root)), ..Listing::default() })
    }

    /// A file whose state is the hash of its content: a new commit changes nothing about the others.
    fn file(&self, file: &HubFile) -> SourceFile {
        let uri = format!("{}/{}", self.root, file.path);
        let Ok(path) = Path::parse(&file.path) else {
            return SourceFile::unreadable(uri, odd_keys::REASON.to_owned());
        };
        let state = Some(FileState { modified: None, e_tag: Some(file.hash.clone()), version: None });
        SourceFile { uri, path, size: file.size, state, unreadable: None }
    }
}

/// A dataset has a card, licences and scripts next to its data.
fn named_format_only(path: &str) -> bool {
    named_format(path).is_some()
}
