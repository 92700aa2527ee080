//! A dataset at one commit as a read-only object store.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    Attributes, CopyOptions, Error, Extensions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    path::Path,
};
use tokio::sync::OnceCell;

use crate::{
    address::HubAddress,
    client::HubClient,
    download::{Download, RemoteFile},
    error::HubError,
    tree::{HubEntry, HubFile},
};

/// A dataset at one commit. Its files are those below one folder, which are listed once, because a commit never
/// changes; the bytes of any file of the dataset can be read.
#[derive(Debug, Clone)]
pub struct HubStore {
    client: HubClient,
    commit: String,
    /// The folder whose files are listed.
    folder: String,
    files: Arc<OnceCell<BTreeMap<String, ObjectMeta>>>,
}

impl HubStore {
    /// The dataset of an address at the present commit of its revision.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn open(address: &HubAddress) -> Result<Self, HubError> {
        let client = HubClient::from_env(address.dataset())?;
        let commit = client.commit(address.revision()).await?;
        let folder = address.path().trim_end_matches('/').to_owned();
        Ok(Self { client, commit, folder, files: Arc::default() })
    }

    /// The client with which the store sends its requests.
    pub fn client(&self) -> &HubClient {
        &self.client
    }

    /// The commit that is read.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Lists the files below the folder, unless they are listed already.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn load(&self) -> Result<(), HubError> {
        self.files().await.map(|_| ())
    }

    async fn files(&self) -> Result<&BTreeMap<String, ObjectMeta>, HubError> {
        let list = async || {
            let mut files = BTreeMap::new();
            let mut entries = std::pin::pin!(self.client.tree(&self.commit, &self.folder));
            while let Some(entry) = entries.try_next().await? {
                if let HubEntry::File(file) = entry
                    && let Some(meta) = meta(&file)
                {
                    files.insert(file.path, meta);
                }
            }
            Ok(files)
        };
        self.files.get_or_try_init(list).await
    }

    /// The size and hash of a file.
    async fn meta(&self, path: &Path) -> Result<ObjectMeta, HubError> {
        if self.is_listed(path) {
            return self.files().await?.get(path.as_ref()).cloned().ok_or_else(|| self.missing(path));
        }
        let found = self.client.find_paths(&self.commit, &[path.as_ref()]).await?;
        let file = found.into_iter().find_map(|entry| match entry {
            HubEntry::File(file) if file.path == path.as_ref() => meta(&file),
            _ => None,
        });
        file.ok_or_else(|| self.missing(path))
    }

    fn missing(&self, path: &Path) -> HubError {
        HubError::NoFile { dataset: self.client.dataset().to_owned(), path: path.to_string() }
    }

    /// Whether a path is below the folder whose files are listed.
    fn is_listed(&self, path: &Path) -> bool {
        let rest = path.as_ref().strip_prefix(self.folder.as_str());
        self.folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
    }

    fn read_only(&self) -> Error {
        let source = format!("the dataset `{}` is read at one commit: nothing is written", self.client.dataset());
        Error::NotSupported { source: source.into() }
    }
}

/// A file as the listing shows it; `None` for a path that no store can have.
fn meta(file: &HubFile) -> Option<ObjectMeta> {
    Some(object(Path::parse(&file.path).ok()?, file.size, Some(file.hash.clone())))
}

fn object(location: Path, size: u64, e_tag: Option<String>) -> ObjectMeta {
    ObjectMeta { location, last_modified: DateTime::UNIX_EPOCH, size, e_tag, version: None }
}

impl fmt::Display for HubStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubStore({}@{})", self.client.dataset(), self.commit)
    }
}

#[async_trait]
impl ObjectStore for HubStore {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(self.read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(self.read_only())
    }

    /// Conditions on the file's tag and time are not checked: the file of a commit never changes.
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.is_listed(location) && self.files.get().is_some_and(|files| !files.contains_key(location.as_ref())) {
            return Err(self.missing(location).into());
        }
        let (payload, meta, range) = if options.head {
            let meta = self.meta(location).await?;
            (stream::empty().boxed(), meta, 0..0)
        } else {
            let range = match options.range {
                None => None,
                Some(GetRange::Bounded(range)) => Some(range),
                // The other kinds need the size first.
                Some(range) => {
                    let invalid = |error| Error::Generic { store: "hub", source: Box::new(error) };
                    Some(range.as_range(self.meta(location).await?.size).map_err(invalid)?)
                }
            };
            let (client, commit, path) = (self.client.clone(), self.commit.clone(), location.to_string());
            let (mut download, size) = Download::start(RemoteFile { client, commit, path }, range).await?;
            let size = match size {
                Some(size) => size,
                None => self.meta(location).await?.size,
            };
            download.end_at(size);
            let range = download.range();
            (download.into_stream(), object(location.clone(), size, None), range)
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta,
            range,
            attributes: Attributes::default(),
            extensions: Extensions::default(),
        })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let dataset = self.client.dataset().to_owned();
        let refuse = move |_| {
            let source = format!("the dataset `{dataset}` is read at one commit: nothing is deleted");
            Err(Error::NotSupported { source: source.into() })
        };
        paths.map(refuse).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.map(|prefix| format!("{prefix}/")).filter(|prefix| prefix != "/").unwrap_or_default();
        let own = self.clone();
        let list = async move {
            let files = own.files().await?;
            let below = files.iter().filter(|(path, _)| path.starts_with(&prefix)).map(|(_, meta)| Ok(meta.clone()));
            Ok::<_, Error>(stream::iter(below.collect::<Vec<_>>()))
        };
        stream::once(list).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.map(|prefix| format!("{prefix}/")).filter(|prefix| prefix != "/").unwrap_or_default();
        let mut found =
            ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Extensions::default() };
        for (path, meta) in self.files().await? {
            let Some(rest) = path.strip_prefix(&prefix) else { continue };
            match rest.split_once('/') {
                None => found.objects.push(meta.clone()),
                Some((folder, _)) => {
                    let folder = Path::parse(format!("{prefix}{folder}"))?;
                    if found.common_prefixes.last() != Some(&folder) {
                        found.common_prefixes.push(folder);
                    }
                }
            }
        }
        Ok(found)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.read_only())
    }
}
