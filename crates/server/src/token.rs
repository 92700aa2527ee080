//! The tokens of clients.
//!
//! The server knows only their hashes: its arguments, environment and memory contain nothing that gives access.

use std::{fmt, str::FromStr};

/// Bytes of a token: a shorter one could be guessed from its hash.
const MIN_TOKEN_BYTES: usize = 16;

/// BLAKE3 of a token.
///
/// ```
/// use polylance_server::TokenHash;
///
/// let hash = TokenHash::of("0123456789abcdef").unwrap();
/// assert_eq!(hash.to_string().parse::<TokenHash>().unwrap(), hash);
/// assert!(TokenHash::of("secret").is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(blake3::Hash);

/// The text is not a token, or not the hash of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A hash has 64 hexadecimal digits.
    #[error("expected the hash of a token, 64 hexadecimal digits")]
    NotAHash,
    /// The token could be guessed from its hash.
    #[error("a token has at least {MIN_TOKEN_BYTES} characters, without blanks")]
    Short,
}

impl TokenHash {
    /// The hash of a token.
    ///
    /// # Errors
    /// [`TokenError::Short`] for a token of fewer than 16 characters or with blanks in it.
    pub fn of(token: &str) -> Result<Self, TokenError> {
        if token.len() < MIN_TOKEN_BYTES || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(TokenError::Short);
        }
        Ok(Self(blake3::hash(token.as_bytes())))
    }
}

impl FromStr for TokenHash {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        blake3::Hash::from_hex(text).map(Self).map_err(|_| TokenError::NotAHash)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// The token in `Bearer TOKEN`.
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether the token is one of these, or there are no tokens to check.
pub(crate) fn is_allowed(tokens: &[TokenHash], given: Option<&[u8]>) -> bool {
    if tokens.is_empty() {
        return true;
    }
    let Some(given) = given else { return false };
    let given = blake3::hash(given);
    // Hashes are compared in constant time, and all of them, so that the time does not reveal which one is close.
    tokens.iter().filter(|token| token.0 == given).count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_token_is_allowed() {
        let tokens = ["a-token-of-my-own", "and-another-token"].map(|token| TokenHash::of(token).unwrap());
        assert!(is_allowed(&tokens, Some(b"and-another-token")));
        for wrong in [None, Some(&b""[..]), Some(b"and-another-toke"), Some(tokens[0].to_string().as_bytes())] {
            assert!(!is_allowed(&tokens, wrong), "{wrong:?}");
        }
        assert!(is_allowed(&[], None));
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for wrong in [&b"Basic abc"[..], b"abc", b"Bearer", b""] {
            assert_eq!(bearer(wrong), None);
        }
    }

    #[test]
    fn invalid_hashes_and_tokens_are_refused() {
        assert_eq!("abc".parse::<TokenHash>(), Err(TokenError::NotAHash));
        assert_eq!(TokenHash::of("with blanks in between"), Err(TokenError::Short));
    }
}
