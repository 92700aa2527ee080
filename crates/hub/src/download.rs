//! The bytes of one file. A connection that ends early is opened again at the next missing byte.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use http::{HeaderValue, StatusCode, header};
use object_store::client::HttpError;

use crate::{
    client::{HubClient, Request},
    error::HubError,
};

/// How often a download is continued after its connection ended early.
const MAX_CONTINUATIONS: usize = 5;

/// A file of a dataset at a commit.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    pub(crate) client: HubClient,
    pub(crate) commit: String,
    pub(crate) path: String,
}

/// A part of a file that is being read.
pub(crate) struct Download {
    file: RemoteFile,
    /// The bytes of the file that are missing.
    missing: Range<u64>,
    body: Option<Body>,
    continuations: usize,
}

/// The rest of a response.
struct Body {
    bytes: BoxStream<'static, Result<Bytes, HttpError>>,
    /// Bytes before the requested ones, of a server that does not support ranges.
    skipped: u64,
}

impl RemoteFile {
    /// Requests a part of the file. Returns the size of the whole file too, where the response has it.
    async fn request(&self, Range { start, end }: Range<u64>) -> Result<(Body, Option<u64>), HubError> {
        let client = &self.client;
        let parts = ["datasets"].into_iter().chain(client.dataset().split('/'));
        let parts = parts.chain(["resolve", &self.commit]).chain(self.path.split('/'));
        let mut request = Request::get(client.url(parts));
        if (start, end) != (0, u64::MAX) {
            let range = HeaderValue::try_from(format!("bytes={start}-{}", end.saturating_sub(1)));
            request.headers.push((header::RANGE, range.map_err(|error| client.malformed(error.to_string()))?));
        }
        let response = match client.send(&request).await {
            Err(HubError::NoFile { dataset, .. }) => {
                return Err(HubError::NoFile { dataset, path: self.path.clone() });
            }
            response => response?,
        };
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (skipped, size) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let given = text(header::CONTENT_RANGE).and_then(|given| given.strip_prefix("bytes "));
                let Some((_, size)) = given
                    .filter(|given| given.starts_with(&format!("{start}-")))
                    .and_then(|given| given.split_once('/'))
                else {
                    return Err(client.malformed(format!("other bytes of {} than the requested ones", self.path)));
                };
                (0, size.parse().ok())
            }
            _ => (start, text(header::CONTENT_LENGTH).and_then(|size| size.parse().ok())),
        };
        Ok((Body { bytes: response.into_body().bytes_stream(), skipped }, size))
    }
}

impl Download {
    /// Requests a file, or a part of it. Returns the size of the whole file too, where the response has it.
    pub(crate) async fn start(file: RemoteFile, range: Option<Range<u64>>) -> Result<(Self, Option<u64>), HubError> {
        let missing = range.unwrap_or(0..u64::MAX);
        let (body, size) = file.request(missing.clone()).await?;
        let mut download = Self { file, missing, body: Some(body), continuations: 0 };
        if let Some(size) = size {
            download.end_at(size);
        }
        Ok((download, size))
    }

    /// Ends the download at the end of a file of this size.
    pub(crate) fn end_at(&mut self, size: u64) {
        self.missing.end = self.missing.end.min(size);
    }

    /// The missing bytes.
    pub(crate) fn range(&self) -> Range<u64> {
        self.missing.clone()
    }

    /// The next bytes; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, HubError> {
        while !self.missing.is_empty() {
            let Some(body) = &mut self.body else {
                self.body = Some(self.file.request(self.missing.clone()).await?.0);
                continue;
            };
            match body.bytes.next().await {
                Some(Ok(mut bytes)) => {
                    let skipped = body.skipped.min(bytes.len() as u64);
                    body.skipped -= skipped;
                    let _before = bytes.split_to(skipped as usize);
                    bytes.truncate((self.missing.end - self.missing.start).min(bytes.len() as u64) as usize);
                    self.missing.start += bytes.len() as u64;
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
                ended if self.continuations == MAX_CONTINUATIONS => {
                    return Err(match ended {
                        Some(Err(source)) => HubError::Unreachable { endpoint: self.file.path.clone(), source },
                        _ => self.file.client.malformed(format!("{} ends before its size", self.file.path)),
                    });
                }
                _ => {
                    self.continuations += 1;
                    self.body = None;
                }
            }
        }
        Ok(None)
    }

    /// All missing bytes.
    pub(crate) async fn bytes(mut self) -> Result<Vec<u8>, HubError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    pub(crate) fn into_stream(self) -> BoxStream<'static, object_store::Result<Bytes>> {
        stream::try_unfold(self, |mut download| async move {
            let next = download.next().await?;
            Ok(next.map(|bytes| (bytes, download)))
        })
        .boxed()
    }
}
