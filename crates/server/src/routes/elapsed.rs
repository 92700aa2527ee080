//! The time that a request took.

use std::time::Instant;

/// Milliseconds since then, to the microsecond.
pub(super) fn milliseconds_since(started: Instant) -> f64 {
    started.elapsed().as_micros() as f64 / 1000.0
}
