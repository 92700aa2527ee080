//! The revisions of the protocol.

use axum::http::{HeaderMap, HeaderName};

use crate::error::RpcError;

/// The header of every request after the first.
const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// A revision that the server supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProtocolVersion {
    V20250326,
    V20250618,
    V20251125,
}

impl ProtocolVersion {
    /// Newest first.
    const ALL: [Self; 3] = [Self::V20251125, Self::V20250618, Self::V20250326];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V20250326 => "2025-03-26",
            Self::V20250618 => "2025-06-18",
            Self::V20251125 => "2025-11-25",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// The requested revision if the server supports it, otherwise the newest one that it supports.
    pub(super) fn negotiate(requested: &str) -> Self {
        Self::from_name(requested).unwrap_or(Self::ALL[0])
    }

    /// The revision that a request names. The first one over HTTP had no header.
    pub(super) fn of_headers(headers: &HeaderMap) -> Result<Self, RpcError> {
        let Some(value) = headers.get(VERSION_HEADER) else { return Ok(Self::V20250326) };
        let name = String::from_utf8_lossy(value.as_bytes());
        Self::from_name(&name).ok_or_else(|| RpcError::unsupported_protocol_version(&name, &Self::ALL.map(Self::name)))
    }

    /// Later revisions have one message per request.
    pub(super) fn allows_batches(self) -> bool {
        self == Self::V20250326
    }
}
