//! Ports, their connections, and the bytes on them.

mod activity;
mod first_bytes_timeout;
mod port;
mod response_body;
mod tls;
mod write_timeout;

pub(crate) use port::{ConnectionHandler, Port};
pub(crate) use tls::{Certificate, acceptor};
