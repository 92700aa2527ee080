//! Arguments that several commands share.

mod cluster;
mod columns;
pub(crate) mod duration;
mod model;
pub(crate) mod named;
mod output;
mod shard;
mod task;
mod word;

pub(crate) use cluster::ClusterArg;
pub(crate) use columns::split_columns;
pub(crate) use model::{ComputeArgs, DeviceArgs, MemoryArgs, ModelArgs, TableModelArgs};
pub(crate) use output::{OutputArgs, ProgressMode};
pub(crate) use shard::ShardArg;
pub(crate) use task::{TaskArgs, usage};
pub(crate) use word::{read_word, word};
