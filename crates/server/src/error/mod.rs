//! The errors that keep a server from starting, and the errors that clients receive.

mod api_error;
mod convert;
mod rpc_error;
mod server_error;
mod shape;

pub(crate) use api_error::ApiError;
pub(crate) use rpc_error::RpcError;
pub use server_error::ServerError;
pub(crate) use shape::{ErrorShape, ErrorShapes};
