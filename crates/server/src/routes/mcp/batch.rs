//! Several messages in one body, as the revision 2025-03-26 allows.

use std::time::Instant;

use serde_json::value::RawValue;

use super::{
    Replies,
    message::{INITIALIZE, Message, Refusal, Reply},
    methods,
    version::ProtocolVersion,
};
use crate::{
    error::{ApiError, RpcError},
    state::App,
};

/// The maximum number of messages.
const MAX_MESSAGES: usize = 16;

/// Answers one message after another. All of them together have the time and the result bytes of one request.
pub(super) async fn replies(app: &App, version: ProtocolVersion, body: &RawValue) -> Result<Replies, Refusal> {
    let messages: Vec<&RawValue> = serde_json::from_str(body.get())
        .map_err(|error| RpcError::parse_error(format!("the body is not valid JSON: {error}")))?;
    if !version.allows_batches() {
        let message = format!("the revision {} has no batches: send one message per request", version.name());
        return Err(RpcError::invalid_request(message).into());
    }
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        let message = format!("expected 1 to {MAX_MESSAGES} messages in a batch, found {}", messages.len());
        return Err(RpcError::invalid_request(message).into());
    }
    let started = Instant::now();
    let mut result_bytes = 0;
    let mut replies = Vec::new();
    for message in messages {
        let reply = match Message::parse(message) {
            Ok(Message::NoReply) => continue,
            Err(refusal) => refusal.into(),
            Ok(Message::Request(request)) if request.method == INITIALIZE => {
                Reply::from(request.refused(RpcError::invalid_request("`initialize` cannot be part of a batch")))
            }
            Ok(Message::Request(request)) => {
                let is_over =
                    started.elapsed() >= app.limits.request_timeout || result_bytes >= app.limits.max_response_bytes;
                if is_over {
                    let error =
                        ApiError::too_much("too_large", "the batch takes too long or its results are too large");
                    Reply::from(request.refused(RpcError::refused(&error.hint("send fewer messages at once"))))
                } else {
                    Box::pin(methods::answer(app, &request)).await
                }
            }
        };
        result_bytes += reply.result_bytes();
        replies.push(reply);
    }
    Ok(if replies.is_empty() { Replies::None } else { Replies::Batch(replies) })
}
