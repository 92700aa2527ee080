//! Jobs of the engine with their output: progress, summaries and warnings.

pub(crate) mod annotate;
pub(crate) mod embed;
