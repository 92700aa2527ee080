//! The URI of a source: its schemes, whether it is a glob, and how messages show it.

use url::Url;

/// Before the name of a built-in corpus.
pub(super) const BUILTIN: &str = "builtin:";
/// Before the path of a file on this machine.
pub(super) const FILE: &str = "file://";

/// The source that is read from standard input.
pub(super) const STDIN: &str = "-";
/// Its name in messages and in the quarantine. The address of any other file has a slash or a colon.
pub(crate) const STDIN_NAME: &str = "stdin";

/// Characters that make a path a glob, unless something with exactly this name exists.
const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

/// Whether a path, or a part of one, can be a glob.
pub(crate) fn is_glob(path: &str) -> bool {
    path.contains(WILDCARDS)
}

/// Whether an address is on a web server.
pub(crate) fn is_web(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// A URI as messages may show it.
pub(crate) fn redacted(uri: &str) -> String {
    match uri {
        STDIN => STDIN_NAME.to_owned(),
        uri if uri.starts_with("http") => redacted_web(uri),
        uri => uri.to_owned(),
    }
}

/// An address as messages, the quarantine and the table may show it: without a query, which may be a signature, and
/// without a password.
pub(super) fn redacted_web(uri: &str) -> String {
    let Ok(mut url) = Url::parse(uri) else { return uri.split(['?', '#']).next().unwrap_or_default().to_owned() };
    // Not every kind of URL can have a password.
    let _ = (url.set_username(""), url.set_password(None));
    url[..url::Position::AfterPath].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_possible_secrets() {
        for (uri, shown) in [
            ("https://user:secret@host:8080/a/%C3%A9.csv?X-Sig=abc#x", "https://host:8080/a/%C3%A9.csv"),
            ("http://host?token=abc", "http://host/"),
            ("http://[broken?token=abc", "http://[broken"),
        ] {
            assert_eq!(redacted_web(uri), shown);
        }
    }
}
