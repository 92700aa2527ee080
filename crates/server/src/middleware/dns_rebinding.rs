//! Protects the server from web pages of other sites.
//!
//! A server without tokens answers this machine only, but a browser on this machine runs other people's pages. With DNS
//! rebinding, such a page reaches the server by letting a name of its own point here; the request then carries that name.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, header},
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
    let path = request.uri().path();
    let is_api = path.starts_with("/v1") || ["/metrics", "/mcp"].contains(&path);
    if is_api && request.headers().get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return Err(ApiError::foreign_page());
    }
    // The Model Context Protocol requires the check of the origin, also for browsers without Fetch Metadata.
    if path == "/mcp" && !is_own_origin(request.headers()) {
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

/// Whether no page made the request, or one of this server: a browser names the page's origin in requests that post.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.zip(host).is_some_and(|((_, authority), host)| authority.eq_ignore_ascii_case(host))
    })
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
    fn only_the_origin_of_the_request_itself_is_own() {
        let headers = |host: &str, origins: &[&str]| {
            let origins = origins.iter().map(|origin| (header::ORIGIN, origin.parse().unwrap()));
            origins.chain([(header::HOST, host.parse().unwrap())]).collect::<HeaderMap>()
        };
        assert!(is_own_origin(&HeaderMap::new()) && is_own_origin(&headers("localhost:8000", &[])));
        assert!(is_own_origin(&headers("localhost:8000", &["http://LOCALHOST:8000"])));
        for origins in [
            &["http://evil.example"][..],
            &["http://localhost:3000"],
            &["null"],
            &["http://localhost:8000", "http://evil.example"],
        ] {
            assert!(!is_own_origin(&headers("localhost:8000", origins)), "{origins:?}");
        }
    }

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
