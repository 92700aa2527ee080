//! Safetensors, one file or one shard.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::{Entry, Stored};
use crate::error::{ModelError, Result};

/// Lists the tensors of one file.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Vec<(String, Entry)>> {
    let (header_bytes, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| {
        ModelError::damaged(path, format!("{error}; the file has {} bytes and may be truncated", bytes.len()))
    })?;
    // The length of the header precedes it, in eight bytes.
    let data = header_bytes + 8;
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let stored = match info.dtype {
            Dtype::F32 => Stored::F32,
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::Bf16,
            other => Stored::Other(format!("{other:?}").to_lowercase()),
        };
        let range = data + info.data_offsets.0..data + info.data_offsets.1;
        (name, Entry { stored, shape: info.shape.clone(), range })
    });
    Ok(entries.collect())
}
