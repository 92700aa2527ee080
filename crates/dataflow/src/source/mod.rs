//! Where a corpus is: from a URI to files, and to the types of their columns.

pub(crate) mod columns;
pub(crate) mod coverage;
pub(crate) mod file;
pub(crate) mod fingerprint;
pub(crate) mod input_types;
pub(crate) mod location;
pub(crate) mod open;
pub(crate) mod partitions;
pub(crate) mod profile;
pub(crate) mod projection;
pub(crate) mod rows;
pub(crate) mod shard;
pub(crate) mod spec;
pub(crate) mod split;
pub(crate) mod unchanged;
pub(crate) mod uri;
