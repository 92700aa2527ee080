//! Ids and keys that need more memory than is granted: the rest goes to temporary files.

pub(crate) mod key_set;
pub(crate) mod source_ids;
