//! PyTorch `.bin`: a zip archive with a pickle that lists the tensors, and their bytes stored as they are.

use std::{
    collections::HashMap,
    io::{Cursor, Read},
    path::Path,
};

use zip::{CompressionMethod, ZipArchive};

use super::{
    Entry, Stored,
    pickle::{self, PickledTensor},
};
use crate::error::{ModelError, Result};

/// The member with the list of tensors, after the archive's name.
const PICKLE_MEMBER: &str = "data.pkl";

/// Lists the tensors of one file.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Vec<(String, Entry)>> {
    if !bytes.starts_with(b"PK") {
        return Err(ModelError::damaged(
            path,
            "not a zip archive: truncated, or written by PyTorch before 1.6, whose format is not read; save it again as \
             safetensors",
        ));
    }
    let members = Members::of(bytes, path)?;
    let tensors = pickle::tensors(&members.list).map_err(|error| ModelError::damaged(path, error))?;
    if tensors.is_empty() {
        return Err(ModelError::damaged(path, "the pickle lists no tensors"));
    }
    tensors.into_iter().map(|tensor| entry(tensor, &members, path)).collect()
}

/// The members of the archive.
struct Members {
    /// The pickle.
    list: Vec<u8>,
    /// The prefix of the storages' names.
    folder: String,
    /// Where each stored member begins.
    starts: HashMap<String, usize>,
}

impl Members {
    fn of(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = |error: zip::result::ZipError| ModelError::damaged(path, error);
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
        let (mut starts, mut found) = (HashMap::new(), None);
        for index in 0..archive.len() {
            let mut member = archive.by_index(index).map_err(damaged)?;
            // PyTorch does not compress; a compressed archive could unpack to any size.
            if member.compression() != CompressionMethod::Stored {
                continue;
            }
            let (Ok(name), Some(start)) = (member.name(), member.data_start()) else { continue };
            let name = name.to_string();
            if let Some(folder) = name.strip_suffix(PICKLE_MEMBER) {
                if found.is_some() {
                    return Err(ModelError::damaged(path, format!("more than one {PICKLE_MEMBER}")));
                }
                let mut list = Vec::new();
                member.read_to_end(&mut list).map_err(|error| ModelError::damaged(path, error))?;
                found = Some((list, format!("{folder}data/")));
            }
            starts.insert(name, start as usize);
        }
        let (list, folder) =
            found.ok_or_else(|| ModelError::damaged(path, format!("{PICKLE_MEMBER} is not stored in it")))?;
        Ok(Self { list, folder, starts })
    }
}

fn entry(tensor: PickledTensor, members: &Members, path: &Path) -> Result<(String, Entry)> {
    let PickledTensor { name, storage, key, offset, shape, stride } = tensor;
    let (stored, element) = match storage.as_str() {
        "FloatStorage" => (Stored::F32, 4),
        "HalfStorage" => (Stored::F16, 2),
        "BFloat16Storage" => (Stored::Bf16, 2),
        "DoubleStorage" => (Stored::Other("f64".to_owned()), 8),
        "LongStorage" => (Stored::Other("i64".to_owned()), 8),
        other => (Stored::Other(other.to_owned()), 1),
    };
    if !is_contiguous(&shape, &stride) {
        return Err(ModelError::unsupported(
            format!("tensor {name:?} in {}", path.display()),
            "expected a contiguous tensor",
        ));
    }
    let member = format!("{}{key}", members.folder);
    let start = members.starts.get(&member).ok_or_else(|| {
        ModelError::damaged(path, format!("tensor {name:?} refers to {member:?}, which is not stored"))
    })?;
    let range = || {
        let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
        let start = start.checked_add(offset.checked_mul(element)?)?;
        Some(start..start.checked_add(elements.checked_mul(element)?)?)
    };
    let range = range().ok_or_else(|| {
        ModelError::damaged(path, format!("tensor {name:?} of shape {shape:?} is larger than any file"))
    })?;
    Ok((name, Entry { stored, shape, range }))
}

/// Whether the elements lie one after another, the last axis first.
fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = Some(1_usize);
    let axes = shape.iter().zip(stride).rev();
    shape.len() == stride.len()
        && axes.into_iter().all(|(&size, &step)| {
            let fits = size <= 1 || expected == Some(step);
            expected = expected.and_then(|step| step.checked_mul(size));
            fits
        })
}
