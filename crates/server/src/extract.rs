//! Requests as types, and what does not fit as an error that says so.

use std::fmt;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use futures::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapDeserializer},
};
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;

use crate::{error::ApiError, routes, state::App};

/// A body of JSON. A field that is null is absent, as typed clients write what they leave out; what is left out has its
/// default, or is missing.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

/// The parameters behind the `?`.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

/// The names in the path.
#[derive(Debug)]
pub(crate) struct Names<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        let limit = limit(parts.uri.path(), app.limits.body);
        if content_length(&parts.headers).is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        let (bytes, _room) = read(body, limit, app).await?;
        let parsed = parse(&bytes);
        parsed.map(Self).map_err(|error| ApiError::bad("invalid_request", format!("the body does not fit: {error}")))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let Given(fields) = serde_json::from_slice(bytes)?;
    T::deserialize(MapDeserializer::new(fields.into_iter()))
}

/// The fields of an object that are not null, in their order: one that is there twice is still refused.
struct Given<'b>(Vec<(String, &'b RawValue)>);

impl<'b> Deserialize<'b> for Given<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'b> Visitor<'b> for Fields {
            type Value = Given<'b>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if value.get() != "null" {
                        fields.push((name, value));
                    }
                }
                Ok(Given(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// For an optional field of an object inside a body: null is its default there too.
pub(crate) fn null_is_absent<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A page of somebody else's site can send a form here without asking, and no JSON.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let error = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "the body is not said to be JSON");
    Err(error.hint("send the header `Content-Type: application/json`"))
}

/// Only bodies with many inputs are large.
fn limit(path: &str, limit: usize) -> usize {
    if routes::takes_inputs(path) { limit } else { limit.min(SMALL) }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body is larger than {limit} bytes");
    let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
    // A larger limit is for inputs alone.
    if limit == SMALL { error } else { error.hint("send it in parts, or start the server with a larger --max-body") }
}

/// Bytes that every connection may send without waiting for room.
const SMALL: usize = 1 << 20;

/// How many bodies of more than that are read at once. A large one waits for its room before it is read on.
pub(crate) const LARGE_BODIES: usize = 16;

async fn read(body: Body, limit: usize, app: &App) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), ApiError> {
    let time = app.limits.body_time;
    let mut parts = body.into_data_stream();
    let whole = async {
        let (mut bytes, mut room) = (Vec::new(), None);
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| ApiError::bad("body_cut_off", "the body ended before its end"))?;
            let length = bytes.len() + part.len();
            if length > limit {
                return Err(too_large(limit));
            }
            if length > SMALL && room.is_none() {
                room = Some(app.large_bodies.acquire().await.map_err(|_| ApiError::busy())?);
            }
            bytes.extend_from_slice(&part);
        }
        Ok((bytes, room))
    };
    tokio::time::timeout(time, whole).await.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} seconds", time.as_secs());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
    })
}

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|error| {
            ApiError::bad("invalid_request", format!("the parameters do not fit: {}", error.body_text()))
        })?;
        Ok(Self(params))
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Names<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Path(names) = Path::from_request_parts(parts, app).await.map_err(|error| {
            ApiError::bad("invalid_request", format!("the path does not fit: {}", error.body_text()))
        })?;
        Ok(Self(names))
    }
}
