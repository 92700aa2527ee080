//! What an error says beside its text: who can do something about it, and what.

use std::{borrow::Cow, error::Error};

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The user, by another argument, setting or input.
    User,
    /// The surroundings: a store, a disk, a device, another run. The same command may succeed later.
    Environment,
    /// Nobody outside of the project: it is a defect of polylance.
    Internal,
}

/// An error that explains itself.
pub trait Explain: Error {
    /// What to do about it, in one line, where there is more to say than the text does.
    fn hint(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Who can do something about it.
    fn class(&self) -> ErrorClass;
}

/// What a refusal of the store means, and what to set.
pub const REFUSED_BY_STORE: &str = "the store refuses these credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or those of \
                       Google and Azure), AWS_REGION, and AWS_ENDPOINT_URL for a store that is not Amazon's";

/// Whether a store's message says that it refuses the credentials: some refusals have no type of their own.
pub fn says_refused(message: &str) -> bool {
    ["403 Forbidden", "401 Unauthorized"].iter().any(|status| message.contains(status))
}

/// A message without the places in sources that errors of Lance and DataFusion carry
/// (`, /registry/lance-14.0.2/src/scanner.rs:839:33`): they tell a user nothing.
pub fn without_source_places(text: &str) -> String {
    text.split(", ").filter(|part| !is_source_place(part)).collect::<Vec<_>>().join(", ")
}

#[expect(clippy::case_sensitive_file_extension_comparisons, reason = "Rust's own sources end so")]
fn is_source_place(part: &str) -> bool {
    let mut parts = part.rsplitn(3, ':');
    let mut number = || parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let numbered = number() && number();
    numbered && parts.next().is_some_and(|file| file.ends_with(".rs") && !file.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_sources_are_left_out() {
        let text = "no field named x, y., /registry/lance-14.0.2/src/scanner.rs:839:33";
        assert_eq!(without_source_places(text), "no field named x, y.");
        for text in ["a, b", "see job.rs:3", "docs.lance: 12:30:00, later", ""] {
            assert_eq!(without_source_places(text), text);
        }
    }

    #[test]
    fn a_refusal_is_known_by_its_status() {
        assert!(says_refused("Generic S3 error: ... 403 Forbidden ..."));
        assert!(!says_refused("404 Not Found"));
    }
}
