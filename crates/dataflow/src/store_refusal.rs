//! Errors of object stores that refuse the credentials.

use std::{error::Error, io, iter::successors};

use object_store::Error::{PermissionDenied, Unauthenticated};

/// Whether an object store refused the credentials, anywhere in an error's chain.
///
/// A refused listing is a generic error of `object_store`, which only its text shows.
pub fn is_store_refusal(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| cause(*error)).any(|error| {
        matches!(error.downcast_ref(), Some(PermissionDenied { .. } | Unauthenticated { .. }))
            || ["403 Forbidden", "401 Unauthorized"].iter().any(|status| error.to_string().contains(status))
    })
}

/// An error inside of an I/O error is not its source: the two have the same text.
fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_found_by_type_and_by_text_below_other_errors() {
        let typed = || PermissionDenied { path: "a.csv".into(), source: "no key".into() };
        assert!(is_store_refusal(&typed()));
        assert!(is_store_refusal(&io::Error::other(typed())));
        assert!(is_store_refusal(&io::Error::other("Generic S3 error: ... 403 Forbidden ...")));
        assert!(!is_store_refusal(&io::Error::other("404 Not Found")));
    }
}
