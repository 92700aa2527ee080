//! The layers around the routes.

pub(crate) mod authorize;
pub(crate) mod dns_rebinding;
pub(crate) mod observe;
