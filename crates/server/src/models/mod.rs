//! The models that a server computes with.

mod batching;
mod cache;

pub(crate) use cache::ModelCache;
pub use cache::ServedModels;
