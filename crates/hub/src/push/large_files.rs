//! Uploads of large files, as git's extension for large files and the hub define them: in one request, or in parts.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::spawn_blocking};
use ureq::{
    SendBody,
    tls::{TlsConfig, TlsProvider},
};

use super::{PARALLEL, PushFile};
use crate::{
    client::{HubClient, Request},
    error::HubError,
};

/// The type of requests about large files.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.git-lfs+json");
/// How often an upload is tried.
const MAX_ATTEMPTS: u32 = 4;
/// The wait before the second attempt; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time between the end of a request and the beginning of its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(5);
/// The longest time for a body: this, and that of its bytes at the slowest rate.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// The slowest rate, in bytes per second.
const MIN_RATE: u64 = 50_000;
/// The key of an upload in parts for the bytes of a part.
const PART_SIZE: &str = "chunk_size";

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    /// The requests to send; none for a file that the hub has already.
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct ObjectError {
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

impl HubClient {
    /// Sends the files to the storage for large files, and returns each with its SHA-256.
    pub(super) async fn send_large<'f>(&self, files: &[&'f PushFile]) -> Result<Vec<(&'f PushFile, String)>, HubError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let hashed = stream::iter(files.iter().map(|file| async move {
            let hash = file.content.sha256().await.map_err(|error| self.upload(&file.path, error))?;
            Ok::<_, HubError>((*file, hash))
        }));
        let hashed: Vec<(&PushFile, String)> = hashed.buffered(PARALLEL).try_collect().await?;
        let objects: Vec<Value> =
            hashed.iter().map(|(file, hash)| json!({ "oid": hash, "size": file.content.size() })).collect();
        let (owner, name) = self.dataset().split_once('/').unwrap_or_default();
        let repository = format!("{name}.git");
        let url = self.url(["datasets", owner, &repository, "info", "lfs", "objects", "batch"]);
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
        });
        let mut request = Request::post(url, &body);
        request.headers = vec![(header::ACCEPT, MEDIA_TYPE), (header::CONTENT_TYPE, MEDIA_TYPE)];
        let (batch, _): (Batch, _) = self.json(&request).await?;
        let uploads = stream::iter(hashed.iter().map(|(file, hash)| {
            let object = batch.objects.iter().find(|object| object.oid == *hash);
            async move {
                let object = object.ok_or_else(|| self.upload(&file.path, "the hub returned no address for it"))?;
                if let Some(error) = &object.error {
                    return Err(self.upload(&file.path, &error.message));
                }
                match &object.actions {
                    Some(actions) => self.send_one(file, hash, actions).await,
                    None => Ok(()),
                }
            }
        }));
        uploads.buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        Ok(hashed)
    }

    async fn send_one(&self, file: &PushFile, hash: &str, actions: &Actions) -> Result<(), HubError> {
        if let Some(upload) = &actions.upload {
            let size = file.content.size();
            match part_size(upload) {
                None => {
                    self.put(file, &upload.href, 0..size).await?;
                }
                Some(part_size) => self.send_parts(file, hash, upload, part_size).await?,
            }
        }
        if let Some(verify) = &actions.verify {
            let url = self.at_endpoint(&verify.href);
            let url = url.ok_or_else(|| self.upload(&file.path, "the hub names no address to verify it"))?;
            self.send(&Request::post(url, &json!({ "oid": hash, "size": file.content.size() }))).await?;
        }
        Ok(())
    }

    async fn send_parts(&self, file: &PushFile, hash: &str, upload: &Action, part_size: u64) -> Result<(), HubError> {
        let size = file.content.size();
        let mut parts: Vec<(u64, &str)> =
            upload.header.iter().filter_map(|(number, url)| Some((number.parse().ok()?, url.as_str()?))).collect();
        parts.sort_unstable();
        if parts.len() as u64 != size.div_ceil(part_size) {
            return Err(self.upload(&file.path, "the hub names too many or too few parts"));
        }
        let mut done = Vec::with_capacity(parts.len());
        for (at, (number, url)) in parts.into_iter().enumerate() {
            let start = at as u64 * part_size;
            let tag = self.put(file, url, start..size.min(start + part_size)).await?;
            let tag = tag.ok_or_else(|| self.upload(&file.path, "a part has no tag in the response"))?;
            done.push(json!({ "partNumber": number, "etag": tag }));
        }
        // The address is signed, and may be that of another server: the token is not sent there.
        let (address, body) = (upload.href.clone(), json!({ "oid": hash, "parts": done }).to_string());
        let sent = spawn_blocking(move || {
            retried(|| {
                let request = agent(body.len() as u64).post(&address).header("accept", "application/vnd.git-lfs+json");
                let response = request.header("content-type", "application/vnd.git-lfs+json").send(body.as_str());
                checked(response).map(|_| ())
            })
        });
        sent.await.map_err(|error| self.upload(&file.path, error))?.map_err(|error| self.upload(&file.path, error))
    }

    /// Sends a part of a file to a signed address, without the token, and returns the tag in the response.
    async fn put(&self, file: &PushFile, url: &str, range: std::ops::Range<u64>) -> Result<Option<String>, HubError> {
        let (content, url, runtime) = (file.content.clone(), url.to_owned(), Handle::current());
        let sent = spawn_blocking(move || {
            retried(|| {
                let mut reader = content.reader(runtime.clone(), range.clone());
                let size = range.end - range.start;
                let request = agent(size).put(&url).header("content-length", size.to_string());
                let response = checked(request.send(SendBody::from_reader(&mut reader)))?;
                let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok());
                Ok(tag.map(str::to_owned))
            })
        });
        sent.await.map_err(|error| self.upload(&file.path, error))?.map_err(|error| self.upload(&file.path, error))
    }
}

fn part_size(upload: &Action) -> Option<u64> {
    let size = upload.header.get(PART_SIZE)?;
    size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|size| *size > 0)
}

/// An agent for a body of `size` bytes.
fn agent(size: u64) -> ureq::Agent {
    let tls = TlsConfig::builder().provider(TlsProvider::Rustls).build();
    let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false);
    let config = config.timeout_connect(Some(CONNECT_TIMEOUT)).timeout_recv_response(Some(RESPONSE_TIMEOUT));
    config.timeout_send_body(Some(BODY_TIMEOUT + Duration::from_secs(size / MIN_RATE))).build().into()
}

/// The response if it is a success. Messages do not contain the address, which is signed.
fn checked(response: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<http::Response<ureq::Body>, String> {
    match response {
        Ok(response) if response.status().is_success() => Ok(response),
        Ok(response) => Err(format!("the storage responded with status {}", response.status().as_u16())),
        Err(ureq::Error::Io(error)) => Err(error.to_string()),
        Err(_) => Err("the storage does not respond".to_owned()),
    }
}

fn retried<T>(send: impl Fn() -> Result<T, String>) -> Result<T, String> {
    let mut attempt = 1;
    loop {
        match send() {
            Err(_) if attempt < MAX_ATTEMPTS => {
                std::thread::sleep(FIRST_WAIT * 2_u32.pow(attempt - 1));
                attempt += 1;
            }
            result => return result,
        }
    }
}
