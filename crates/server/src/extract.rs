//! Requests as types; the error of a request that does not fit its type explains why.

use std::fmt;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapDeserializer},
};
use serde_json::value::RawValue;

use crate::{error::ApiError, limits::body::BodyKind, state::App};

/// A JSON body. A field that is null counts as absent, because typed clients write all fields.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A JSON body with many inputs for a model, which may be larger than others.
#[derive(Debug)]
pub(crate) struct InputsBody<T>(pub(crate) T);

/// The bytes of a JSON body, for a protocol that explains itself what does not fit.
#[derive(Debug)]
pub(crate) struct JsonBytes(pub(crate) Vec<u8>);

/// The parameters after the `?`.
#[derive(Debug)]
pub(crate) struct QueryParams<T>(pub(crate) T);

/// The parameters in the path.
#[derive(Debug)]
pub(crate) struct PathParams<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        read(request, app, BodyKind::Query).await.map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for InputsBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        read(request, app, BodyKind::Inputs).await.map(Self)
    }
}

impl FromRequest<App> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_content_type(&parts.headers)?;
        app.bodies.read(&parts.headers, body, BodyKind::Query).await.map(|received| Self(received.bytes))
    }
}

async fn read<T: DeserializeOwned>(request: Request, app: &App, kind: BodyKind) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    check_content_type(&parts.headers)?;
    let received = app.bodies.read(&parts.headers, body, kind).await?;
    parse(&received.bytes).map_err(|error| ApiError::bad("invalid_request", format!("the body does not fit: {error}")))
}

/// An object as a type; a field that is null counts as absent.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let PresentFields(fields) = serde_json::from_slice(bytes)?;
    T::deserialize(MapDeserializer::new(fields.into_iter()))
}

/// The fields of an object that are not null, in their order and with duplicates, which the type then refuses.
struct PresentFields<'b>(Vec<(String, &'b RawValue)>);

impl<'b> Deserialize<'b> for PresentFields<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'b> Visitor<'b> for FieldsVisitor {
            type Value = PresentFields<'b>;

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
                Ok(PresentFields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// For an optional field of an object inside a body: null is its default as well.
pub(crate) fn null_is_absent<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Requires JSON: a page of another site can send a form here without the user's consent, but no JSON.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let error = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "the content type is not JSON");
    Err(error.hint("send the header `Content-Type: application/json`"))
}

impl<T: DeserializeOwned> FromRequestParts<App> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|error| {
            ApiError::bad("invalid_request", format!("the parameters do not fit: {}", error.body_text()))
        })?;
        Ok(Self(params))
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<App> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Path(params) = Path::from_request_parts(parts, app).await.map_err(|error| {
            ApiError::bad("invalid_request", format!("the path does not fit: {}", error.body_text()))
        })?;
        Ok(Self(params))
    }
}
