//! Messages of JSON-RPC 2.0.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, IgnoredAny},
};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::error::RpcError;

/// The method that begins a connection.
pub(super) const INITIALIZE: &str = "initialize";

/// A message of a client.
#[derive(Debug)]
pub(super) enum Message<'m> {
    Request(Request<'m>),
    /// A notification, or the response to a request, which this server never sends.
    NoReply,
}

/// A request, which has exactly one response.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) id: RequestId,
    pub(super) method: String,
    params: Option<&'m RawValue>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum RequestId {
    Integer(i64),
    Text(String),
}

/// A body or a part of a batch that is no valid message.
#[derive(Debug)]
pub(super) struct Refusal {
    id: Option<RequestId>,
    error: RpcError,
}

/// The response to a request.
#[derive(Debug, Serialize)]
pub(super) struct Reply {
    jsonrpc: &'static str,
    /// Null if the id of the request is unknown.
    id: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RpcError>,
}

/// The fields of every kind of message. A field that is null is there, unless it is `params`.
#[derive(Debug, Deserialize)]
struct Fields<'m> {
    jsonrpc: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'m RawValue>,
    #[serde(default, deserialize_with = "present")]
    result: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    error: Option<IgnoredAny>,
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<'m> Message<'m> {
    pub(super) fn parse(message: &'m RawValue) -> Result<Self, Refusal> {
        let fields: Fields<'m> = object(message.get())
            .map_err(|error| RpcError::invalid_request(format!("the message is not a JSON-RPC message: {error}")))?;
        let has_id = fields.id.is_some();
        let id: Option<RequestId> = fields.id.and_then(|id| serde_json::from_value(id).ok());
        let invalid = |id, message: &str| Err(Refusal { id, error: RpcError::invalid_request(message) });
        if fields.jsonrpc != Some(Value::from("2.0")) {
            return invalid(id, "`jsonrpc` must be \"2.0\"");
        }
        match (fields.method, id) {
            (Some(method), Some(id)) => Ok(Self::Request(Request { id, method, params: fields.params })),
            (Some(_), None) if has_id => invalid(None, "`id` must be a text or a whole number"),
            (None, id) if fields.result.is_none() && fields.error.is_none() => invalid(id, "`method` is missing"),
            (Some(_) | None, _) => Ok(Self::NoReply),
        }
    }
}

impl Request<'_> {
    /// The parameters; a method without any has an empty object.
    pub(super) fn params<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        object(self.params.map_or("{}", RawValue::get))
            .map_err(|error| RpcError::invalid_params(format!("the parameters of {} do not fit: {error}", self.method)))
    }

    pub(super) fn refused(&self, error: RpcError) -> Refusal {
        Refusal { id: Some(self.id.clone()), error }
    }

    /// The response.
    pub(super) fn reply(&self, outcome: Result<Box<RawValue>, RpcError>) -> Reply {
        let id = Some(self.id.clone());
        match outcome {
            Ok(result) => Reply { jsonrpc: "2.0", id, result: Some(result), error: None },
            Err(error) => Reply { jsonrpc: "2.0", id, result: None, error: Some(error) },
        }
    }
}

/// An object as a type. Serde itself also reads the fields of a type from an array, by their position.
fn object<'m, T: Deserialize<'m>>(text: &'m str) -> Result<T, serde_json::Error> {
    if text.starts_with('{') { serde_json::from_str(text) } else { Err(de::Error::custom("expected an object")) }
}

/// A result as JSON.
pub(super) fn to_result(value: &impl Serialize) -> Result<Box<RawValue>, RpcError> {
    to_raw_value(value).map_err(|_| RpcError::internal("the result cannot be written as JSON"))
}

impl Reply {
    /// Bytes of the result.
    pub(super) fn result_bytes(&self) -> usize {
        self.result.as_ref().map_or(0, |result| result.get().len())
    }
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self { id: None, error }
    }
}

impl From<Refusal> for Reply {
    fn from(Refusal { id, error }: Refusal) -> Self {
        Self { jsonrpc: "2.0", id, result: None, error: Some(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        match Message::parse(raw) {
            Ok(Message::Request(request)) => Ok(format!("{:?} {}", request.id, request.method)),
            Ok(Message::NoReply) => Ok("no reply".to_owned()),
            Err(refusal) => Err(serde_json::to_string(&Reply::from(refusal)).unwrap()),
        }
    }

    #[test]
    fn requests_have_an_id_and_notifications_and_responses_have_no_reply() {
        let request = |text| parsed(text).unwrap();
        assert_eq!(request(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#), "Integer(1) ping");
        assert_eq!(request(r#"{"jsonrpc":"2.0","id":"a","method":"x","params":null,"more":[{}]}"#), "Text(\"a\") x");
        for text in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#,
        ] {
            assert_eq!(request(text), "no reply", "{text}");
        }
    }

    #[test]
    fn other_objects_are_invalid_requests() {
        for text in [
            "{}",
            "1",
            "null",
            "\"ping\"",
            r#"["2.0",1,"ping",{},null,null]"#,
            r#"{"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":2}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        ] {
            assert!(parsed(text).unwrap_err().contains("-32600"), "{text}");
        }
        let known = parsed(r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#).unwrap_err();
        assert!(known.contains("\"id\":7"), "{known}");
    }
}
