//! Keys of object stores that cannot be paths: with `//`, with `.` or `..` between slashes, with control characters.
//!
//! `object_store` parses the keys of a listing as paths, and one invalid key fails the whole listing. The listing is
//! then repeated through a connection that removes such keys from the responses before they are parsed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use lance_io::object_store::{StorageOptions, providers::aws::build_aws_credential};
use object_store::{
    ClientOptions, ObjectStore, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::MicrosoftAzureBuilder,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector},
    gcp::{GcpCredential, GoogleCloudStorageBuilder},
    path::Path,
};

/// The message about such an object.
pub(super) const REASON: &str = "keys with an empty part (`//`), a part `.` or `..`, or a control character cannot be \
                                 read: copy the object to another key";

/// The time before its expiry at which a credential is renewed.
const RENEW_BEFORE: Duration = Duration::from_mins(1);

/// The tags around an object and around its key in a listing of S3 and of Google, and in one of Azure.
const TAGS: [(&str, &str); 2] = [("Contents", "Key"), ("Blob", "Name")];

/// A store of the bucket whose listings omit keys that cannot be paths, and gather them in `odd`. It is opened as Lance
/// opens it; `None` if the environment does not suffice for that.
pub(super) async fn lister(root: &str, odd: &Arc<Mutex<Vec<String>>>) -> Option<Arc<dyn ObjectStore>> {
    let sieve = Sieve { odd: Arc::clone(odd) };
    match root.split_once("://")?.0 {
        "s3" => s3(root, sieve).await,
        "gs" => google(root, sieve),
        "az" => azure(root, sieve),
        _ => None,
    }
}

async fn s3(root: &str, sieve: Sieve) -> Option<Arc<dyn ObjectStore>> {
    let mut options = StorageOptions::new(HashMap::default());
    options.with_env_s3();
    let mut options = options.as_s3_options();
    if std::env::var_os("AWS_PROFILE").is_some() {
        let profile = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        if let Some(endpoint) = profile.endpoint_url() {
            options.entry(AmazonS3ConfigKey::Endpoint).or_insert_with(|| endpoint.to_owned());
        }
        if let Some(region) = profile.region() {
            options.entry(AmazonS3ConfigKey::Region).or_insert_with(|| region.to_string());
        }
    }
    let region = match options.get(&AmazonS3ConfigKey::Region) {
        Some(region) => Some(region.clone()),
        None if options.contains_key(&AmazonS3ConfigKey::Endpoint) => None,
        None => {
            let bucket = root.strip_prefix("s3://")?;
            Some(object_store::aws::resolve_bucket_region(bucket, &ClientOptions::new()).await.ok()?)
        }
    };
    let (credentials, region) =
        build_aws_credential(RENEW_BEFORE, None, Some(&options), region, None, None).await.ok()?;
    let builder = AmazonS3Builder::new().with_url(root).with_http_connector(sieve);
    let builder = options.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Some(Arc::new(builder.with_credentials(credentials).with_region(region).build().ok()?))
}

fn google(root: &str, sieve: Sieve) -> Option<Arc<dyn ObjectStore>> {
    let mut options = StorageOptions::new(HashMap::default());
    options.with_env_gcs();
    let builder = GoogleCloudStorageBuilder::new().with_url(root).with_http_connector(sieve);
    let builder = builder.with_client_options(options.client_options().ok()?);
    let mut builder =
        options.as_gcs_options().into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    if let Some(token) = options.get("google_storage_token") {
        let credential = GcpCredential { bearer: token.clone() };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
    }
    Some(Arc::new(builder.build().ok()?))
}

fn azure(root: &str, sieve: Sieve) -> Option<Arc<dyn ObjectStore>> {
    let mut options = StorageOptions::new(HashMap::default());
    options.with_env_azure();
    let builder = MicrosoftAzureBuilder::new().with_url(root).with_http_connector(sieve);
    let builder = builder.with_client_options(options.client_options().ok()?);
    let builder =
        options.as_azure_options().into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Some(Arc::new(builder.build().ok()?))
}

/// Makes connections that remove odd keys from listings.
#[derive(Debug)]
struct Sieve {
    odd: Arc<Mutex<Vec<String>>>,
}

impl HttpConnector for Sieve {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Sieved { inner, odd: Arc::clone(&self.odd) }))
    }
}

#[derive(Debug)]
struct Sieved {
    inner: HttpClient,
    odd: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl HttpService for Sieved {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_listing = |query: &str| query.contains("list-type=2") || query.contains("comp=list");
        let is_listing = request.uri().query().is_some_and(is_listing);
        let response = self.inner.execute(request).await?;
        if !is_listing || !response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        let (body, odd) = sieve(&String::from_utf8_lossy(&body));
        self.odd.lock().unwrap_or_else(PoisonError::into_inner).extend(odd);
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

/// A page of a listing without the keys that cannot be paths, and these keys, but for empty objects in place of a
/// folder, whose keys end with a slash.
fn sieve(xml: &str) -> (String, Vec<String>) {
    let (mut kept, mut odd) = (String::with_capacity(xml.len()), Vec::new());
    let mut rest = xml;
    for (entry_tag, key_tag) in TAGS {
        let (open, close) = (format!("<{entry_tag}>"), format!("</{entry_tag}>"));
        while let Some(start) = rest.find(&open) {
            let Some(end) = rest[start..].find(&close).map(|at| start + at + close.len()) else { break };
            let entry = &rest[start..end];
            kept.push_str(&rest[..start]);
            match key(entry, key_tag) {
                Some(key) if Path::parse(&key).is_err() => {
                    if !key.ends_with('/') {
                        odd.push(key);
                    }
                }
                _ => kept.push_str(entry),
            }
            rest = &rest[end..];
        }
    }
    kept.push_str(rest);
    (kept, odd)
}

/// The key of an entry, with its XML entities decoded.
fn key(entry: &str, tag: &str) -> Option<String> {
    let (_, rest) = entry.split_once(&format!("<{tag}>"))?;
    let (mut rest, _) = rest.split_once(&format!("</{tag}>"))?;
    let mut key = String::new();
    while let Some((before, after)) = rest.split_once('&') {
        let (name, after) = after.split_once(';')?;
        key.push_str(before);
        key.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        });
        rest = after;
    }
    key.push_str(rest);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be_paths_are_removed() {
        let entry =
            |(outer, tag): (&str, &str), key: &str| format!("<{outer}><{tag}>{key}</{tag}><Size>1</Size></{outer}>");
        let page = |tags, keys: &[&str]| {
            let entries: String = keys.iter().map(|key| entry(tags, key)).collect();
            format!("<Results><BlobPrefix><Name>a//</Name></BlobPrefix>{entries}<Prefix/></Results>")
        };
        let good = ["a/b.csv", "a&amp;b/&#x6587;.csv", "a/", "x%2Fy"];
        let odd = ["a//b.csv", "a/../c&lt;.csv", "./d", "a/&#10;.csv", "a//"];
        let all: Vec<&str> = good.iter().chain(&odd).copied().collect();
        for tags in TAGS {
            let (kept, found) = sieve(&page(tags, &all));
            assert_eq!(kept, page(tags, &good));
            assert_eq!(found, ["a//b.csv", "a/../c<.csv", "./d", "a/\n.csv"]);
            assert_eq!(key(&entry(tags, "a&amp;b&#x6587;&#10;"), tags.1).unwrap(), "a&b文\n");
        }
        assert_eq!(sieve("no xml"), ("no xml".to_owned(), vec![]));
    }
}
