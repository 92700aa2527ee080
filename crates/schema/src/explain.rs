//! Hints and classes of errors: who can act on an error, and how.

use std::{borrow::Cow, error::Error};

/// Who can act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The user, with another argument, setting or input.
    User,
    /// The environment: a store, a disk, a device, another run. The same command may succeed later.
    Environment,
    /// Only the project: a defect of polylance.
    Internal,
}

/// An error that explains itself.
pub trait Explain: Error {
    /// Advice in one line, where it adds something to the text.
    fn hint(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Who can act on it.
    fn class(&self) -> ErrorClass;
}

/// An error followed by its causes on one line, for logs.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The hint for a store that refuses the credentials.
pub const STORE_REFUSAL_HINT: &str = "the store refuses these credentials: set AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY (or those of Google and Azure), AWS_REGION, and AWS_ENDPOINT_URL for a store that is not \
    Amazon's";

/// A message without the locations in source code that errors of Lance and DataFusion contain
/// (`, /registry/lance-14.0.2/src/scanner.rs:839:33`): they do not help a user.
pub fn without_source_locations(text: &str) -> String {
    text.split(", ").filter(|part| !is_source_location(part)).collect::<Vec<_>>().join(", ")
}

#[expect(clippy::case_sensitive_file_extension_comparisons, reason = "Rust's sources end in lower case")]
fn is_source_location(part: &str) -> bool {
    let mut parts = part.rsplitn(3, ':');
    let mut number = || parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let numbered = number() && number();
    numbered && parts.next().is_some_and(|file| file.ends_with(".rs") && !file.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_locations_are_removed() {
        let text = "no field named x, y., /registry/lance-14.0.2/src/scanner.rs:839:33";
        assert_eq!(without_source_locations(text), "no field named x, y.");
        for text in ["a, b", "see job.rs:3", "docs.lance: 12:30:00, later", ""] {
            assert_eq!(without_source_locations(text), text);
        }
    }

    #[test]
    fn causes_follow_the_error() {
        let cause = std::io::Error::other("disk full");
        let error = std::io::Error::other(crate::UnknownWord { what: "dtype", found: "f64".into(), expected: "f32" });
        assert_eq!(with_causes(&cause), "disk full");
        assert_eq!(with_causes(&error), error.to_string());
        let contract = serde_json::from_str::<u8>("x").map_err(crate::ContractError::from).unwrap_err();
        let text = with_causes(&contract);
        assert!(text.starts_with(&format!("{contract}: ")) && text.contains("expected value"), "{text}");
    }
}
