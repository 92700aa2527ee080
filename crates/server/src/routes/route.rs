//! A route and its description.

use axum::routing::MethodRouter;

use crate::{error::ErrorShape, openapi::Operation, state::App};

/// A route with the description that is published for it.
pub(super) struct Route {
    pub(super) operation: Operation,
    pub(super) handler: MethodRouter<App>,
    pub(super) error_shape: ErrorShape,
}

impl Route {
    pub(super) fn new(operation: Operation, handler: MethodRouter<App>) -> Self {
        Self { operation, handler, error_shape: ErrorShape::Own }
    }

    /// A route of `OpenAI`'s interface.
    pub(super) fn openai(operation: Operation, handler: MethodRouter<App>) -> Self {
        Self { error_shape: ErrorShape::OpenAi, ..Self::new(operation, handler) }
    }

    /// A route whose messages are JSON-RPC.
    pub(super) fn json_rpc(operation: Operation, handler: MethodRouter<App>) -> Self {
        Self { error_shape: ErrorShape::JsonRpc, ..Self::new(operation, handler) }
    }
}
