//! Sources on a web server: one file, requested at exactly the given address, query included.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector},
    http::HttpBuilder,
    path::Path,
};
use url::Url;

use super::listing::Listing;
use crate::{
    error::SourceError,
    source::{
        file::{FileState, SourceFile},
        uri::redacted_web,
    },
};

/// A file on a web server, and what the server supports.
#[derive(Debug)]
pub(crate) struct WebFile {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Whether the server supports range requests.
    pub(crate) ranges: bool,
    /// Whether the server returns the length of the file.
    pub(crate) sized: bool,
    /// The server's time of the response.
    pub(crate) date: Option<DateTime<Utc>>,
}

/// The file at an address, if there is one.
pub(super) async fn find(uri: &str) -> Result<(WebFile, Listing), SourceError> {
    let address = redacted_web(uri);
    let refuse = |message: String| SourceError::Uri { uri: address.clone(), message };
    let mut url = Url::parse(uri).map_err(|error| refuse(error.to_string()))?;
    url.set_fragment(None);
    let seen = Arc::new(Mutex::new(ServerInfo::default()));
    let store = HttpBuilder::new()
        .with_url(&url[..url::Position::BeforePath])
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_http_connector(Connector { url: url.clone(), seen: Arc::clone(&seen) })
        .build()
        .map_err(|error| refuse(error.to_string()))?;
    // The connection has the address: the path only names the file in messages of the store.
    let path = Path::from_url_path(url.path()).unwrap_or_default();
    let meta = match store.head(&path).await {
        Ok(meta) => Some(meta),
        Err(Error::NotFound { .. }) => None,
        Err(source) => return Err(SourceError::Storage { uri: address, source }),
    };
    let ServerInfo { date, ranges, sized } = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let server = WebFile { store: Arc::new(store), ranges, sized, date };
    let mut found = Listing::default();
    if let Some(meta) = meta {
        let state = FileState { modified: modified_time(meta.last_modified), e_tag: meta.e_tag, version: None };
        let file = SourceFile { uri: address, path, size: meta.size, state: Some(state), unreadable: None };
        found.files.push(file);
    }
    Ok((server, found))
}

/// The modification time in a response; `object_store` returns the beginning of 1970 where there is none.
pub(crate) fn modified_time(modified: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (modified.timestamp() != 0).then_some(modified)
}

/// What a response shows in addition to what `object_store` reads from it.
#[derive(Debug, Default)]
struct ServerInfo {
    date: Option<DateTime<Utc>>,
    ranges: bool,
    sized: bool,
}

struct Connector {
    url: Url,
    seen: Arc<Mutex<ServerInfo>>,
}

// The URL may hold a password or a signature.
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Connection { inner, url: self.url.clone(), seen: Arc::clone(&self.seen) }))
    }
}

struct Connection {
    inner: HttpClient,
    url: Url,
    seen: Arc<Mutex<ServerInfo>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // A parsed URL is a URI, except for a few characters that browsers accept.
        if let Ok(uri) = self.url.as_str().parse() {
            *request.uri_mut() = uri;
        }
        // A signature may be valid for GET alone, so the first byte is requested in place of a head.
        let is_head = request.method().as_str() == "HEAD";
        if is_head {
            *request.method_mut() = "GET".parse().unwrap_or_default();
            if let Ok(first) = "bytes=0-0".parse() {
                request.headers_mut().insert("range", first);
            }
        }
        let mut response = self.inner.execute(request).await?;
        let is_empty = response.status().as_u16() == 416;
        if !is_head || !(response.status().is_success() || is_empty) {
            // The stream needs no length, and `object_store` needs the header.
            if response.status().is_success() && !response.headers().contains_key("content-length") {
                response.headers_mut().insert("content-length", 0.into());
            }
            return Ok(response);
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let date = header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        let partial = response.status().as_u16() == 206;
        let size: Option<u64> = match header("content-range") {
            Some(range) => range.rsplit_once('/').and_then(|(_, size)| size.parse().ok()),
            None if is_empty => Some(0),
            None => header("content-length").and_then(|size| size.parse().ok()),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = ServerInfo {
            date: date.map(|date| date.to_utc()),
            ranges: (partial || is_empty) && size.is_some(),
            sized: size.is_some(),
        };
        response.headers_mut().insert("content-length", size.unwrap_or_default().into());
        let (mut parts, _) = response.into_parts();
        parts.status = "200".parse().unwrap_or_default();
        Ok(HttpResponse::from_parts(parts, Bytes::new().into()))
    }
}
