//! One module per command: its arguments, whose doc comments are the help, and its `run` function.

pub(crate) mod annotate;
pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod compact;
pub(crate) mod completions;
pub(crate) mod embed;
pub(crate) mod encode;
pub(crate) mod executor;
pub(crate) mod fit;
pub(crate) mod index;
pub(crate) mod init;
pub(crate) mod man;
pub(crate) mod map;
pub(crate) mod model;
pub(crate) mod predict;
pub(crate) mod push;
pub(crate) mod quarantine;
pub(crate) mod run;
pub(crate) mod scheduler;
pub(crate) mod schema;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod sql;
