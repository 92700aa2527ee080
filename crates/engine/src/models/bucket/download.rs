//! One file of a model, written to this machine.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    path::Path,
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectStore};

use super::{
    error::BucketModelError,
    remote::{RemoteFile, RemoteModel},
};

/// The bytes of one request. Each has its own retries and time limit.
const RANGE_BYTES: u64 = 16 << 20;
/// Requests that are sent ahead.
const MAX_REQUESTS: usize = 4;

/// A file that is being written, and the hash of its bytes so far.
struct Output {
    file: File,
    hasher: blake3::Hasher,
    written: u64,
}

impl Output {
    fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Self { file: File::create(path)?, hasher: blake3::Hasher::new(), written: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

impl RemoteModel {
    /// Downloads a file of the listing, syncs it, and returns the BLAKE3 of its bytes, hexadecimal.
    pub(super) async fn download(&self, file: &RemoteFile, path: &Path) -> Result<String, BucketModelError> {
        let cache = |source| BucketModelError::Cache { model: self.name.clone(), path: path.to_owned(), source };
        let size = file.meta.size;
        let place = path.to_owned();
        let mut output = on_blocking_thread(move || Output::create(&place)).await.map_err(cache)?;
        if size > 0 {
            let first = self.get(file, 0..size.min(RANGE_BYTES), None).await?;
            if !is_listed(file, &first) {
                return Err(self.changed(file));
            }
            // The tag of the first response, because the listings of some stores have others.
            let tag = first.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
            let first = first.bytes().await.map_err(|error| self.store_error(error))?;
            let rest = (1..size.div_ceil(RANGE_BYTES)).map(|number| {
                let range = number * RANGE_BYTES..((number + 1) * RANGE_BYTES).min(size);
                let tag = tag.clone();
                async move {
                    let got = self.get(file, range, tag).await?;
                    got.bytes().await.map_err(|error| self.store_error(error))
                }
            });
            let parts = stream::iter([Ok(first)]).chain(stream::iter(rest).buffered(MAX_REQUESTS));
            let mut parts = std::pin::pin!(parts);
            while let Some(bytes) = parts.try_next().await? {
                let append = move || output.append(&bytes).map(|()| output);
                output = on_blocking_thread(append).await.map_err(cache)?;
            }
        }
        if output.written != size {
            let (model, file) = (self.name.clone(), file.name.clone());
            return Err(BucketModelError::Incomplete { model, file, expected: size, found: output.written });
        }
        let Output { file, hasher, .. } = output;
        on_blocking_thread(move || file.sync_all()).await.map_err(cache)?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    async fn get(
        &self,
        file: &RemoteFile,
        range: Range<u64>,
        tag: Option<String>,
    ) -> Result<GetResult, BucketModelError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: tag,
            version: file.meta.version.clone(),
            ..GetOptions::default()
        };
        match self.store.get_opts(&file.meta.location, options).await {
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Err(self.changed(file)),
            got => got.map_err(|error| self.store_error(error)),
        }
    }

    fn changed(&self, file: &RemoteFile) -> BucketModelError {
        BucketModelError::Changed { model: self.name.clone(), file: file.name.clone() }
    }
}

/// Whether a response is about the file of the listing: by its tag, or where stores list another one, by its time.
fn is_listed(file: &RemoteFile, found: &GetResult) -> bool {
    let tag = |tag: &Option<String>| tag.as_ref().map(|tag| tag.trim_matches('"').to_owned());
    let same_tag = match (tag(&file.meta.e_tag), tag(&found.meta.e_tag)) {
        (Some(listed), Some(found)) => listed == found,
        _ => false,
    };
    let same_time = file.meta.last_modified.timestamp() == found.meta.last_modified.timestamp();
    file.meta.size == found.meta.size && (same_tag || same_time)
}

/// Runs `work` on a thread that may wait for the disk.
pub(super) async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
