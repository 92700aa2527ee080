//! Errors of the engine as Python's exceptions.

use std::error::Error;

use polylance_engine::explain;
use polylance_schema::ErrorClass;
use pyo3::prelude::*;
use serde::Serialize;

/// The exception for any error, with the text and the hint that the command line prints.
pub(crate) fn raise<E: Error + 'static>(error: E) -> PyErr {
    let explained = explain(&error);
    let class = match explained.class {
        Some(ErrorClass::User) => "UsageError",
        Some(ErrorClass::Environment | ErrorClass::Internal) | None => "PolylanceError",
    };
    exception(class, explained.messages.join("\n  caused by: "), explained.hint)
}

/// The exception for arguments that are wrong by themselves.
pub(crate) fn wrong(message: impl Into<String>) -> PyErr {
    exception("UsageError", message.into(), None)
}

/// A report as JSON, with its keys in their order.
pub(crate) fn as_json(report: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(report).map_err(|error| wrong(error.to_string()))
}

fn exception(class: &str, message: String, hint: Option<String>) -> PyErr {
    Python::attach(|py| {
        let raised = py.import("polylance.errors").and_then(|errors| errors.getattr(class)?.call1((message, hint)));
        raised.map_or_else(|import| import, PyErr::from_value)
    })
}
