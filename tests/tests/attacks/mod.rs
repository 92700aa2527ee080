//! Hostile requests.

mod bodies;
mod statements;
mod wires;

use std::{io::Write, net::TcpStream, time::Instant};

use polylance_tests::{Response, TestServer, read_response};
use serde_json::json;

/// The token of the attacked server.
pub(crate) const TOKEN: &str = "0123456789abcdef-0123456789abcdef";

/// A hostile request.
pub(crate) enum Attack {
    /// A body of JSON for a route, with the token.
    Post(&'static str, String),
    /// A path, with the token.
    Get(String),
    /// A request with its own headers.
    Headers(&'static str, &'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// Bytes that are no request; the server may close without a response.
    Raw(Vec<u8>),
    /// Bytes and then silence; the server may close without a response.
    Slow(Vec<u8>),
}

impl Attack {
    /// Sends the request; returns a description of it and the response.
    pub(crate) fn run(&self, server: &TestServer) -> (String, Response) {
        match self {
            Self::Post(route, body) => (shorten(route, body), server.post(route, Some(TOKEN), body)),
            Self::Get(path) => (shorten("GET", path), server.get(path, Some(TOKEN))),
            Self::Headers(method, path, headers, body) => {
                let named: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                (format!("{method} {path} {headers:?}"), server.send(method, path, &named, body))
            }
            Self::Raw(bytes) => (shorten("raw", &String::from_utf8_lossy(bytes)), server.raw(bytes)),
            Self::Slow(bytes) => {
                let started = Instant::now();
                let mut stream = TcpStream::connect(&server.address).unwrap();
                let _closed = stream.write_all(bytes);
                let answer = read_response(stream);
                let what = format!("slow, closed after {:?}: {:?}", started.elapsed(), String::from_utf8_lossy(bytes));
                (what, answer)
            }
        }
    }

    /// Whether the response is a clean refusal.
    pub(crate) fn is_refused_cleanly(&self, answer: &Response) -> bool {
        let silent = matches!(self, Self::Raw(_) | Self::Slow(_)) && (answer.status == 0 || answer.body().is_empty());
        let refused = (400..500).contains(&answer.status) || answer.status == 503;
        // Bytes after a body that was refused early may reset the connection before the response is read.
        let reset = answer.status == 0 && matches!(self, Self::Post(_, body) if body.len() > 1 << 20);
        silent && (answer.status == 0 || refused)
            || reset
            || refused && answer.json()["error"]["code"].is_string() && answer.json()["error"]["message"].is_string()
    }
}

fn shorten(what: &str, text: &str) -> String {
    format!("{what} {}", text.chars().take(300).collect::<String>())
}

/// All attacks, the slow ones evenly distributed.
pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    attacks.extend(
        statements::statements().into_iter().map(|sql| Attack::Post("/v1/sql", json!({ "sql": sql }).to_string())),
    );
    attacks.extend(
        statements::conditions()
            .into_iter()
            .map(|condition| Attack::Post("/v1/search", json!({ "query": "rest", "where": condition }).to_string())),
    );
    attacks.extend(bodies::bodies());
    attacks.extend(wires::paths().into_iter().map(Attack::Get));
    attacks.extend(wires::strangers());
    attacks.extend(wires::wires());
    // Slow attacks last for seconds. Spread from the beginning, they overlap with all others.
    let (slow, mut quick): (Vec<_>, Vec<_>) = attacks.into_iter().partition(|attack| matches!(attack, Attack::Slow(_)));
    let every = quick.len() / slow.len();
    for (at, attack) in slow.into_iter().enumerate() {
        quick.insert(at * (every + 1), attack);
    }
    quick
}
