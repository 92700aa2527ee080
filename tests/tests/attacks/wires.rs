//! Hostile paths, tokens, and bytes that are not requests.

use super::{Attack, TOKEN};

pub(crate) fn paths() -> Vec<String> {
    let fixed = [
        "/../etc/passwd",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/..%5c..%5cetc%5cpasswd",
        "/assets/../../../etc/passwd",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets/%00",
        "//etc/passwd",
        "/etc/passwd",
        "/.env",
        "/.git/config",
        "/index.php",
        "/page/dist/index.html",
        "/proc/self/environ",
        "/v1",
        "/v1/",
        "/v1/../healthz",
        "/v1/tables/",
        "/v1/tables/udhr",
        "/v1/tables/nothing/map",
        "/v1/tables/udhr/map",
        "/v1/tables/udhr/map?limit=-1",
        "/v1/tables/udhr/map?limit=99999999999",
        "/v1/tables/udhr/documents/",
        "/v1/tables/udhr/documents/nobody",
        "/v1/tables/udhr/documents/..%2F..%2Fetc%2Fpasswd",
        "/v1/tables/udhr/documents/%2e%2e",
        "/v1/tables/udhr/documents/'%20OR%20'1'='1",
        "/v1/tables/udhr/documents/%00",
        "/v1/tables/udhr/documents/%ff%fe",
        "/v1/tables/udhr/documents/a/b/c",
        "/v1/tables/..%2Fother/documents/a",
        "/v1/tables/%2Fetc/documents/passwd",
        "/v1/tables/udhr/facets",
        "/v1/tables/udhr/facets?column=text",
        "/v1/tables/udhr/facets?column=embedding",
        "/v1/tables/udhr/facets?column=lang%22%20FROM%20udhr%3B%20DROP%20TABLE%20udhr",
        "/v1/tables/udhr/facets?column=lang&where=1%3D1)%20UNION%20SELECT%20text%2C1%20FROM%20udhr%20WHERE%20(1%3D1",
        "/v1/tables/udhr/facets?column=lang&where=nothing",
        "/v1/tables/udhr/facets?column=lang&where=lang%20IN%20(SELECT%20x%20FROM%20y)",
        "/v1/tables/udhr/facets?column=lang&limit=-1",
        "/v1/tables/udhr/facets?column=lang&limit=1000000",
        "/v1/tables/udhr/facets?column=lang&column=lang&more=1",
        "/v1/search",
        "/v1/sql",
        "/v1/embeddings",
    ];
    let long = ["a".repeat(10_000), "%41".repeat(10_000)];
    let long = long.map(|id| format!("/v1/tables/udhr/documents/{id}"));
    fixed.into_iter().map(str::to_owned).chain(long).collect()
}

/// Requests without a valid token, and with methods and content types that the route does not accept.
pub(crate) fn strangers() -> Vec<Attack> {
    let json = || ("Content-Type", "application/json".to_owned());
    let body = || br#"{"query": "rest"}"#.to_vec();
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer x".to_owned(),
        format!("Bearer {}", &TOKEN[1..]),
        format!("Bearer {TOKEN}x"),
        format!("Bearer {TOKEN}, Bearer x"),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
        format!("Bearer {}", TOKEN.to_uppercase()),
        "Bearer ' OR '1'='1".to_owned(),
        "Bearer ../../etc/passwd".to_owned(),
        format!("Bearer {}", "x".repeat(10_000)),
    ];
    let mut attacks: Vec<_> = wrong
        .into_iter()
        .map(|token| Attack::Headers("POST", "/v1/search", vec![json(), ("Authorization", token)], body()))
        .collect();
    for path in ["/v1/tables", "/v1/openapi.json", "/metrics", "/v1/tables/udhr/documents/x"] {
        attacks.push(Attack::Headers("GET", path, Vec::new(), Vec::new()));
    }
    let token = || ("Authorization", format!("Bearer {TOKEN}"));
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "GET"] {
        attacks.push(Attack::Headers(method, "/v1/search", vec![token()], Vec::new()));
    }
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", ""]
    {
        let kind = ("Content-Type", kind.to_owned());
        attacks.push(Attack::Headers("POST", "/v1/search", vec![token(), kind], body()));
    }
    attacks
}

/// Bytes that are not a request, or only the beginning of one.
pub(crate) fn wires() -> Vec<Attack> {
    let post = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let raw = [
        "\r\n\r\n\r\n\r\n".to_owned() + "nonsense\r\n\r\n",
        "GET\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000)),
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(100_000)),
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(1000)),
        format!("{post}{token}Content-Length: -1\r\n\r\n{{}}"),
        format!("{post}{token}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
        format!("{post}{token}Content-Length: 99999999999999999999999\r\n\r\n{{}}"),
        format!("{post}{token}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{{}}"),
        format!("{post}{token}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}"),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".repeat(20),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    let slow = [
        "G".to_owned(),
        "GET / HTTP/1.1\r\nHost: loc".to_owned(),
        "GET / HTTP/1.1\r\nHost: localhost\r\n".to_owned(),
        format!("{post}{token}Content-Length: 100\r\n\r\n{{"),
        format!("{post}{token}Content-Length: 100\r\n\r\n"),
        format!("{post}{token}Transfer-Encoding: chunked\r\n\r\n1\r\n{{"),
        format!("{post}{token}Content-Length: 900000\r\n\r\n{{\"query\": \"{}", "x".repeat(1000)),
        String::new(),
    ];
    let mut attacks: Vec<_> = raw.into_iter().map(|text| Attack::Raw(text.into_bytes())).collect();
    for text in slow {
        attacks.extend((0..3).map(|_| Attack::Slow(text.clone().into_bytes())));
    }
    attacks
}
