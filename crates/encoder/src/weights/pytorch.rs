//! PyTorch `.bin`: a zip archive with a pickle that lists the tensors, and their bytes stored as they are.

use std::{collections::HashMap, io::Cursor, path::Path};

use candle_core::{
    DType,
    pickle::{TensorInfo, read_pth_tensor_info},
};
use zip::{CompressionMethod, ZipArchive};

use super::{Entry, Stored};
use crate::error::{ModelError, Result};

/// Lists the tensors of one file.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Vec<(String, Entry)>> {
    if !bytes.starts_with(b"PK") {
        return Err(ModelError::damaged(
            path,
            "not a zip archive: cut off, or written by PyTorch before 1.6, whose format is not read; save it again as \
             safetensors",
        ));
    }
    let starts = storages(bytes, path)?;
    let infos = read_pth_tensor_info(path, false, None).map_err(|error| ModelError::damaged(path, error))?;
    if infos.is_empty() {
        return Err(ModelError::damaged(path, "the pickle lists no tensors"));
    }
    infos.into_iter().map(|info| entry(info, &starts, path)).collect()
}

/// Where each stored member of the archive begins.
fn storages(bytes: &[u8], path: &Path) -> Result<HashMap<String, usize>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| ModelError::damaged(path, error))?;
    let mut starts = HashMap::new();
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(|error| ModelError::damaged(path, error))?;
        if member.compression() == CompressionMethod::Stored
            && let (Ok(name), Some(start)) = (member.name(), member.data_start())
        {
            starts.insert(name.to_string(), start as usize);
        }
    }
    Ok(starts)
}

fn entry(info: TensorInfo, starts: &HashMap<String, usize>, path: &Path) -> Result<(String, Entry)> {
    let stored = match info.dtype {
        DType::F32 => Stored::F32,
        DType::F16 => Stored::F16,
        DType::BF16 => Stored::Bf16,
        other => Stored::Other(other.as_str().to_owned()),
    };
    if !info.layout.is_contiguous() {
        return Err(ModelError::unsupported(
            format!("tensor {:?} in {}", info.name, path.display()),
            "expected a contiguous tensor",
        ));
    }
    let start = starts.get(&info.path).ok_or_else(|| {
        ModelError::damaged(path, format!("tensor {:?} refers to {:?}, which is not stored", info.name, info.path))
    })?;
    // candle gives the offset inside the storage in bytes.
    let start = start + info.layout.start_offset();
    let length = info.layout.shape().elem_count() * info.dtype.size_in_bytes();
    Ok((info.name, Entry { stored, shape: info.layout.dims().to_vec(), range: start..start + length }))
}
