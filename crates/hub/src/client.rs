//! Requests to the hub. The user's token is sent to the hub itself: the client below removes it where a redirect leads
//! to another host or port.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        ReqwestConnector,
    },
};
use url::Url;

use crate::{
    error::HubError,
    settings::{HubSettings, Token},
};

/// How often a request is repeated after the hub was busy or the connection failed.
const MAX_RETRIES: u32 = 6;
/// The wait before the first retry; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest time without a byte of the response to a request that changes the dataset, which takes the hub longer.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(10);
/// The longest wait that the hub may request: it counts its limits over five minutes.
const MAX_WAIT: Duration = Duration::from_mins(5);
/// The longest time without a byte of a response.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest reason of the hub that a message repeats, in characters.
const MAX_REASON: usize = 200;

/// Sends requests about one dataset.
#[derive(Debug, Clone)]
pub struct HubClient {
    http: HttpClient,
    /// For requests that change the dataset.
    patient: HttpClient,
    endpoint: Url,
    token: Option<Token>,
    dataset: String,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// Whether it changes the dataset, so that it is repeated only if the hub cannot have processed it.
    pub(crate) is_change: bool,
}

impl Request {
    pub(crate) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: Vec::new(), body: Bytes::new(), is_change: false }
    }

    /// A request with a JSON body.
    pub(crate) fn post(url: Url, body: &serde_json::Value) -> Self {
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Self { method: Method::POST, url, headers, body: body.to_string().into(), is_change: false }
    }

    /// The request as one that changes the dataset.
    pub(crate) fn changing(self) -> Self {
        Self { is_change: true, ..self }
    }

    /// Whether it is repeated after a response with this status.
    fn is_retried(&self, status: StatusCode) -> bool {
        if self.is_change { is_busy(status) } else { is_transient(status) }
    }

    /// Whether it is repeated after this failure of its connection.
    fn is_retried_after(&self, error: &HttpError) -> bool {
        use HttpErrorKind::{Connect, Interrupted, Request, Timeout};

        match error.kind() {
            Connect => true,
            Request | Timeout | Interrupted => !self.is_change,
            _ => false,
        }
    }
}

impl HubClient {
    /// A client for the dataset `OWNER/NAME`, with the settings of the environment.
    ///
    /// # Errors
    /// [`HubError::Offline`], [`HubError::Endpoint`].
    pub fn from_env(dataset: &str) -> Result<Self, HubError> {
        Self::new(HubSettings::from_env(), dataset)
    }

    fn new(settings: HubSettings, dataset: &str) -> Result<Self, HubError> {
        if settings.offline {
            return Err(HubError::Offline { dataset: dataset.to_owned() });
        }
        let refuse = |message: String| HubError::Endpoint { message };
        let endpoint = Url::parse(&settings.endpoint).map_err(|error| refuse(error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.cannot_be_a_base() {
            return Err(refuse("it begins with neither https:// nor http://".to_owned()));
        }
        let connect = |read_timeout: Duration| {
            let options = ClientOptions::new().with_allow_http(true).with_timeout_disabled();
            let connected = ReqwestConnector::default().connect(&options.with_read_timeout(read_timeout));
            connected.map_err(|error| refuse(error.to_string()))
        };
        let (http, patient) = (connect(READ_TIMEOUT)?, connect(CHANGE_TIMEOUT)?);
        Ok(Self { http, patient, endpoint, token: settings.token, dataset: dataset.to_owned() })
    }

    /// The dataset, `OWNER/NAME`.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// Whether the user has a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// An address at the hub, of parts that are encoded. A part with slashes is one part.
    pub(crate) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        // The endpoint can be a base.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// An address of the hub's interface for this dataset.
    pub(crate) fn api<'a>(&'a self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        self.url(["api", "datasets"].into_iter().chain(self.dataset.split('/')).chain(parts))
    }

    /// The address of the page that follows, which the hub itself serves.
    pub(crate) fn next_page(&self, headers: &HeaderMap) -> Option<Url> {
        let links = headers.get(header::LINK)?.to_str().ok()?;
        let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
        let (_, link) = next.split_once('<')?;
        let (link, _) = link.split_once('>')?;
        self.at_endpoint(link)
    }

    /// An address in a response, at the endpoint: a mirror may name the hub that it copies, and the token is for the
    /// endpoint alone.
    pub(crate) fn at_endpoint(&self, link: &str) -> Option<Url> {
        let link = self.endpoint.join(link).ok()?;
        let mut url = self.endpoint.clone();
        url.set_path(link.path());
        url.set_query(link.query());
        Some(url)
    }

    /// Sends a request with the user's token until the hub has responded to it.
    pub(crate) async fn send(&self, request: &Request) -> Result<HttpResponse, HubError> {
        let http = if request.is_change { &self.patient } else { &self.http };
        let mut retries = 0;
        loop {
            let backoff = FIRST_WAIT * 2_u32.pow(retries);
            let wait = match http.execute(self.http_request(request)?).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let status = response.status();
                    let wait = requested_wait(status, response.headers()).unwrap_or(backoff);
                    if !request.is_retried(status) || retries == MAX_RETRIES || wait > MAX_WAIT {
                        let refusal = self.refusal(request, status, response.headers());
                        // With any other status the hub has not processed it.
                        return Err(if is_transient(status) && !is_busy(status) {
                            self.failure(request, refusal)
                        } else {
                            refusal
                        });
                    }
                    wait
                }
                Err(error) if request.is_retried_after(&error) && retries < MAX_RETRIES => backoff,
                Err(error) if matches!(error.kind(), HttpErrorKind::Connect) => return Err(self.unreachable(error)),
                Err(error) => return Err(self.failure(request, self.unreachable(error))),
            };
            retries += 1;
            tracing::debug!(dataset = self.dataset, retries, ?wait, "the hub is busy or did not respond: waiting");
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a request, and parses the response as JSON.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<(T, HeaderMap), HubError> {
        let (parts, body) = self.send(request).await?.into_parts();
        let body = body.bytes().await;
        let body = body.map_err(|error| self.failure(request, self.unreachable(error)))?;
        let value = serde_json::from_slice(&body).map_err(|error| self.malformed(error.to_string()))?;
        Ok((value, parts.headers))
    }

    pub(crate) fn malformed(&self, message: String) -> HubError {
        HubError::Response { endpoint: self.endpoint.as_str().to_owned(), message }
    }

    fn unreachable(&self, source: HttpError) -> HubError {
        HubError::Unreachable { endpoint: self.endpoint.as_str().to_owned(), source }
    }

    /// The failure of a request that the hub may have processed.
    fn failure(&self, request: &Request, error: HubError) -> HubError {
        if request.is_change {
            HubError::Unconfirmed { dataset: self.dataset.clone(), source: Box::new(error) }
        } else {
            error
        }
    }

    fn http_request(&self, request: &Request) -> Result<HttpRequest, HubError> {
        let mut sent = HttpRequest::new(HttpRequestBody::from(request.body.clone()));
        *sent.method_mut() = request.method.clone();
        *sent.uri_mut() =
            request.url.as_str().parse().map_err(|error: http::uri::InvalidUri| self.malformed(error.to_string()))?;
        sent.headers_mut().extend(request.headers.iter().cloned());
        if let Some(token) = &self.token {
            let bearer = HeaderValue::try_from(format!("Bearer {}", token.secret()));
            // The error would repeat the token.
            let mut bearer = bearer.map_err(|_| HubError::Refused {
                dataset: self.dataset.clone(),
                status: 0,
                reason: ": the token has characters that no token has".to_owned(),
                has_token: true,
            })?;
            bearer.set_sensitive(true);
            sent.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        Ok(sent)
    }

    fn refusal(&self, request: &Request, status: StatusCode, headers: &HeaderMap) -> HubError {
        let dataset = self.dataset.clone();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let reason = text("x-error-message").chars().filter(|c| !c.is_control()).take(MAX_REASON).collect::<String>();
        let reason = self.token.as_ref().map_or_else(|| reason.clone(), |token| token.redact(&reason));
        let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
        match (status.as_u16(), text("x-error-code")) {
            (404, "RevisionNotFound") => {
                let revision = request.url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
                HubError::NoRevision { dataset, revision: revision.replace("%2F", "/") }
            }
            (404, "EntryNotFound") => {
                let path = request.url.path().rsplit('/').next().unwrap_or_default().to_owned();
                HubError::NoFile { dataset, path }
            }
            (404, _) => HubError::NoDataset { dataset, has_token: self.has_token() },
            (status @ (401 | 403), _) => HubError::Refused { dataset, status, reason, has_token: self.has_token() },
            (status, _) => HubError::Status { dataset, status, reason },
        }
    }
}

/// Whether a response with this status comes from a hub that is busy before or after it has processed the request.
fn is_transient(status: StatusCode) -> bool {
    is_busy(status) || matches!(status.as_u16(), 408 | 500 | 502 | 504)
}

/// Whether a response with this status comes from a hub that has not processed the request.
fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// The wait that a busy hub requests: `Retry-After` in seconds, or `t` of its `RateLimit` where that is exceeded.
fn requested_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text("retry-after").and_then(|seconds| seconds.trim().parse().ok());
    let limit = || text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    after.or_else(|| (status == StatusCode::TOO_MANY_REQUESTS).then(limit).flatten()).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> HubClient {
        let settings = HubSettings { endpoint: endpoint.to_owned(), token: None, offline: false };
        HubClient::new(settings, "org/news").unwrap()
    }

    #[test]
    fn parts_of_addresses_are_encoded() {
        let client = client("https://mirror.example/hf");
        let url = client.api(["tree", "refs/convert/parquet", "a b"]);
        assert_eq!(url.as_str(), "https://mirror.example/hf/api/datasets/org/news/tree/refs%2Fconvert%2Fparquet/a%20b");
    }

    #[test]
    fn next_page_is_requested_from_the_endpoint() {
        let mut headers = HeaderMap::new();
        assert_eq!(client("https://hub.example").next_page(&headers), None);
        let link = "<https://elsewhere.example/api/datasets/org/news/tree/main?cursor=x%3D>; rel=\"next\"";
        headers.insert(header::LINK, HeaderValue::from_static(link));
        let next = client("https://hub.example").next_page(&headers).unwrap();
        assert_eq!(next.as_str(), "https://hub.example/api/datasets/org/news/tree/main?cursor=x%3D");
    }

    #[test]
    fn wait_is_the_one_that_the_hub_requests() {
        let wait = |status: u16, name: &'static str, value: &'static str| {
            let headers = [(HeaderName::from_static(name), HeaderValue::from_static(value))];
            requested_wait(StatusCode::from_u16(status).unwrap(), &HeaderMap::from_iter(headers))
        };
        assert_eq!(wait(503, "retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(429, "ratelimit", "\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(wait(500, "ratelimit", "\"api\";r=99;t=200"), None);
        assert_eq!(wait(429, "retry-after", "soon"), None);
    }
}
