//! The `[cluster]` section.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// The cluster that embeds the texts, instead of the devices of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// The address of a scheduler, such as `http://scheduler:50050`; this machine embeds when left out.
    pub url: Option<String>,
    /// How much of the source an executor embeds at a time, as stored. A file, or a row group of a Parquet file, is not cut.
    pub split: ByteSize,
    /// Seconds that a run waits for a cluster that is not reached, or has no executor.
    pub patience: u64,
    /// Whether all machines see the same files at the same paths: then the source or the table may be a local path.
    pub shared_files: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { url: None, split: ByteSize(64 << 20), patience: 600, shared_files: false }
    }
}

impl Cluster {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
