//! The methods of the protocol.

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    message::{Reply, Request, to_result},
    tools::{self, Tool},
    version::ProtocolVersion,
};
use crate::{error::RpcError, state::App};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeParams {
    protocol_version: String,
}

#[derive(Debug, Deserialize)]
struct ListParams {
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CallParams {
    name: String,
    arguments: Option<Box<RawValue>>,
}

/// Answers the request that begins a connection. Nothing is kept of it.
pub(super) fn initialize(app: &App, request: &Request<'_>) -> Reply {
    request.reply(request.params().and_then(|params: InitializeParams| {
        let snapshot = app.tables.current();
        let names: Vec<&str> = snapshot.iter().map(|(name, _)| name).collect();
        to_result(&json!({
            "protocolVersion": ProtocolVersion::negotiate(&params.protocol_version).name(),
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "polylance", "title": "polylance", "version": env!("CARGO_PKG_VERSION") },
            "instructions": format!("{} The tables are: {}.", tools::INSTRUCTIONS, names.join(", ")),
        }))
    }))
}

/// Answers a request that is not the first.
pub(super) async fn answer(app: &App, request: &Request<'_>) -> Reply {
    let outcome = match request.method.as_str() {
        "ping" => request.params().and_then(|_: Map<String, Value>| to_result(&json!({}))),
        "tools/list" => request.params().and_then(|params| list(&params)),
        "tools/call" => match request.params() {
            Ok(params) => Box::pin(call(app, params)).await,
            Err(error) => Err(error),
        },
        method => Err(RpcError::method_not_found(format!("there is no method `{method}`"))),
    };
    request.reply(outcome)
}

/// All tools are on the first page, so that no cursor is valid.
fn list(params: &ListParams) -> Result<Box<RawValue>, RpcError> {
    match params.cursor {
        None => to_result(&json!({ "tools": Tool::ALL.map(Tool::describe) })),
        Some(_) => Err(RpcError::invalid_params("`cursor` is not from this server: all tools are on the first page")),
    }
}

async fn call(app: &App, params: CallParams) -> Result<Box<RawValue>, RpcError> {
    let tool = Tool::from_name(&params.name).ok_or_else(|| {
        let names = Tool::ALL.map(Tool::name).join(", ");
        RpcError::invalid_params(format!("unknown tool `{}`: the tools are {names}", params.name))
    })?;
    Box::pin(tool.call(app, params.arguments.as_deref())).await
}
