//! Jobs of the engine, with all that the user sees of them.

pub(crate) mod annotate;
pub(crate) mod embed;
