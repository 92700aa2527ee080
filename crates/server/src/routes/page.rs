//! `GET /`: the web page, which is part of the binary.

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::state::App;

/// A file of the page: its path, its type and its content.
type File = (&'static str, &'static str, &'static [u8]);

include!(concat!(env!("OUT_DIR"), "/page.rs"));

const PAGE_MISSING: &str = "This server was built without its page: run `make page`, then build it again.\n\
    The interface is under /v1, and /v1/openapi.json describes it.\n";

/// The page sends requests to its own server only, and no other page can embed it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; \
    worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn router() -> Router<App> {
    let files = FILES.iter().filter(|(path, ..)| *path != "/index.html");
    let router = Router::new().route("/", get(async || index(FILES)));
    files.fold(router, |router, file| router.route(file.0, get(async || response(file))))
}

fn index(files: &[File]) -> Response {
    match files.iter().find(|(path, ..)| *path == "/index.html") {
        Some(file) => response(file),
        None => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], PAGE_MISSING).into_response(),
    }
}

fn response((path, kind, content): &File) -> Response {
    // The names of files in `assets` change with their content.
    let cache = if path.starts_with("/assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, *content).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn a_server_without_the_page_explains_how_to_add_it() {
        let answer = index(&[]);
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        assert!(PAGE_MISSING.contains("make page"));
    }

    #[test]
    fn the_page_may_load_nothing_from_other_sites() {
        let answer = index(&[("/index.html", "text/html; charset=utf-8", b"<html>")]);
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe-eval"));
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-cache");
        let asset = response(&("/assets/a-1234.js", "text/javascript", b""));
        assert_eq!(
            asset.headers()[header::CACHE_CONTROL],
            HeaderValue::from_static("public, max-age=31536000, immutable")
        );
    }
}
