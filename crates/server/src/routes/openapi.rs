//! `GET /v1/openapi.json`: this interface.

use std::sync::LazyLock;

use axum::{Json, routing::get};
use serde_json::Value;

use super::{Route, api, open};
use crate::openapi::{Operation, document};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let routes: Vec<Route> = api().into_iter().chain(open()).collect();
    document(routes.iter().map(|route| &route.operation))
});

pub(super) fn route() -> Route {
    Route {
        operation: Operation::get("/v1/openapi.json", "This interface"),
        handler: get(async || Json(DOCUMENT.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str));
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(array) => array.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        references(&DOCUMENT, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(DOCUMENT.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_route_is_described() {
        let paths = DOCUMENT["paths"].as_object().unwrap();
        let mut expected: Vec<_> = api().iter().chain(&open()).map(|route| route.operation.path).collect();
        expected.sort_unstable();
        let mut described: Vec<_> = paths.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, expected);
    }
}
