//! Reads the bodies of requests: bounded in bytes and time, and a few large ones at once.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, StatusCode, header},
};
use futures::StreamExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::Limits;
use crate::error::ApiError;

/// Bytes of a body that every connection may send without waiting for a permit, and of a body without inputs.
const SMALL_BODY_BYTES: usize = 1 << 20;

/// Larger bodies that are read at once. Reading a larger one pauses until it has its permit.
pub(crate) const MAX_LARGE_BODIES: usize = 16;

/// What a body contains, which decides how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// A query or a statement.
    Query,
    /// Many inputs for a model.
    Inputs,
}

/// Reads bodies within the limits.
#[derive(Debug)]
pub(crate) struct BodyReader {
    max_inputs_bytes: usize,
    timeout: Duration,
    /// A permit for each large body that is being read.
    pub(crate) large_bodies: Semaphore,
}

/// A body in memory. A large one keeps its permit as long as it is here.
#[derive(Debug)]
pub(crate) struct ReceivedBody<'r> {
    pub(crate) bytes: Vec<u8>,
    large: Option<SemaphorePermit<'r>>,
}

impl BodyReader {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max_inputs_bytes: limits.max_body_bytes,
            timeout: limits.body_timeout,
            large_bodies: Semaphore::new(MAX_LARGE_BODIES),
        }
    }

    /// Reads a whole body. One whose `Content-Length` is too large is refused without reading it.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        kind: BodyKind,
    ) -> Result<ReceivedBody<'_>, ApiError> {
        let max_bytes = match kind {
            BodyKind::Query => self.max_inputs_bytes.min(SMALL_BODY_BYTES),
            BodyKind::Inputs => self.max_inputs_bytes,
        };
        if content_length(headers).is_some_and(|length| length > max_bytes as u64) {
            return Err(too_large(max_bytes));
        }
        let receiving = self.receive(body.into_data_stream(), max_bytes);
        timeout(self.timeout, receiving).await.unwrap_or_else(|_| {
            let message = format!("the body did not arrive within {} seconds", self.timeout.as_secs());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
        })
    }

    async fn receive(&self, mut parts: BodyDataStream, max_bytes: usize) -> Result<ReceivedBody<'_>, ApiError> {
        let mut received = ReceivedBody { bytes: Vec::new(), large: None };
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| ApiError::bad("body_cut_off", "the body was cut off"))?;
            let length = received.bytes.len() + part.len();
            if length > max_bytes {
                return Err(too_large(max_bytes));
            }
            if length > SMALL_BODY_BYTES && received.large.is_none() {
                received.large = Some(self.large_bodies.acquire().await.map_err(|_| ApiError::busy())?);
            }
            received.bytes.extend_from_slice(&part);
        }
        Ok(received)
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(max_bytes: usize) -> ApiError {
    let message = format!("the body is larger than {max_bytes} bytes");
    let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
    // The flag raises the limit of bodies with inputs only.
    if max_bytes == SMALL_BODY_BYTES {
        error
    } else {
        error.hint("send it in parts, or start the server with a larger --max-body")
    }
}
