//! Protects the server from web pages of other sites.
//!
//! A server without tokens answers this machine only, but a browser on this machine runs other people's pages. With DNS
//! rebinding, such a page reaches the server by letting a name of its own point here; the request then carries that name.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderName, header},
    middleware::Next,
    response::Response,
};

use crate::{error::ApiError, state::App};

/// The header in which a browser names the origin of a request (Fetch Metadata, W3C).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests that a page of another site makes a browser send (an image's address is enough for that), and,
/// without tokens, requests for any name but this machine's.
pub(crate) async fn refuse_foreign_pages(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let is_api = request.uri().path().starts_with("/v1") || request.uri().path() == "/metrics";
    if is_api && request.headers().get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return Err(ApiError::foreign_page());
    }
    if app.tokens.is_empty() && !is_this_machine(&request) {
        return Err(ApiError::foreign_host());
    }
    Ok(next.run(request).await)
}

/// Whether every host name in the request is this machine's. Every browser sends the header.
fn is_this_machine(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    hosts.all(|host| host.to_str().is_ok_and(is_local)) && request.uri().host().is_none_or(is_local)
}

/// `localhost` or an IP address, with or without a port. Nobody can let an IP address point elsewhere.
pub(crate) fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_can_point_here_are_not_local() {
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "10.0.0.7", "a.localhost:1"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org:8000", "127.0.0.1.example.org", "", ":80"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
