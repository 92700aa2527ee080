//! Weight files: mapped, listed under Hugging Face's names, converted one tensor at a time.

mod check;
mod gguf;
mod map;
mod pickle;
mod pytorch;
mod safetensors;
mod view;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};

pub(crate) use self::{
    check::{CheckedWeights, TensorSpec, tensors},
    gguf::read_header as read_gguf_header,
    map::Bytes,
    view::{Stored, TensorView, narrow_bf16},
};
use crate::error::{ModelError, Result};

/// A model's weight files, by format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WeightFiles {
    Safetensors(Vec<PathBuf>),
    Pytorch(Vec<PathBuf>),
    Gguf(PathBuf),
    /// The model inside the binary.
    #[cfg(feature = "builtin")]
    Builtin(&'static [u8]),
}

/// A tensor's format, shape and range in its file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

impl Entry {
    /// Refuses an entry whose range is outside the file, or does not fit its shape.
    pub(crate) fn checked(self, name: &str, file_bytes: usize, path: &Path) -> Result<Self> {
        let expected = self.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let expected = expected.and_then(|elements| self.stored.bytes(elements));
        if let (Some(expected), false) = (expected, matches!(self.stored, Stored::Other(_)))
            && expected != self.range.len()
        {
            return Err(ModelError::damaged(
                path,
                format!(
                    "tensor {name:?} of shape {:?} has {} bytes, expected {expected}",
                    self.shape,
                    self.range.len()
                ),
            ));
        }
        if self.range.start > self.range.end || self.range.end > file_bytes {
            return Err(ModelError::damaged(
                path,
                format!(
                    "the file is truncated: tensor {name:?} ends at byte {}, the file has {file_bytes}",
                    self.range.end
                ),
            ));
        }
        Ok(self)
    }
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    bytes: Bytes,
}

/// All tensors of a model, under canonical names: Hugging Face's, without the `roberta.` or `bert.` prefix.
#[derive(Debug)]
pub(crate) struct Weights {
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, (usize, Entry)>,
}

impl Weights {
    /// Maps the files and reads their headers.
    pub(crate) fn open(files: &WeightFiles) -> Result<Self> {
        let mut weights = Self { files: Vec::new(), tensors: BTreeMap::new() };
        match files {
            WeightFiles::Safetensors(paths) => {
                for path in paths {
                    weights.add(path, Bytes::map(path)?, safetensors::read)?;
                }
            }
            WeightFiles::Pytorch(paths) => {
                for path in paths {
                    weights.add(path, Bytes::map(path)?, pytorch::read)?;
                }
            }
            WeightFiles::Gguf(path) => weights.add(path, Bytes::map(path)?, gguf::read)?,
            #[cfg(feature = "builtin")]
            WeightFiles::Builtin(bytes) => {
                weights.add(Path::new("builtin"), Bytes::Static(bytes), gguf::read)?;
            }
        }
        Ok(weights)
    }

    fn add(
        &mut self,
        path: &Path,
        bytes: Bytes,
        read: impl FnOnce(&[u8], &Path) -> Result<Vec<(String, Entry)>>,
    ) -> Result<()> {
        let file_bytes = bytes.as_slice().len();
        for (name, entry) in read(bytes.as_slice(), path)? {
            let entry = entry.checked(&name, file_bytes, path)?;
            self.tensors.insert(canonical(&name), (self.files.len(), entry));
        }
        self.files.push(WeightFile { path: path.to_owned(), bytes });
        Ok(())
    }

    pub(crate) fn view(&self, name: &str) -> Option<TensorView<'_>> {
        let (file, entry) = self.tensors.get(name)?;
        let bytes = self.files.get(*file)?.bytes.as_slice().get(entry.range.clone())?;
        Some(TensorView { stored: &entry.stored, shape: &entry.shape, bytes })
    }

    /// As [`Weights::view`], for a tensor that will be read whole.
    pub(crate) fn read(&self, name: &str) -> Option<TensorView<'_>> {
        let (file, entry) = self.tensors.get(name)?;
        self.files.get(*file)?.bytes.prefetch(&entry.range);
        self.view(name)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether both tensors exist and have the same bytes; PyTorch saves a shared tensor under each of its names.
    pub(crate) fn same(&self, one: &str, other: &str) -> bool {
        let place = |name: &str| self.tensors.get(name).map(|(file, entry)| (*file, &entry.range));
        let bytes = |name: &str| self.view(name).map(|view| (view.stored, view.shape, view.bytes));
        match (bytes(one), bytes(other)) {
            (Some(a), Some(b)) => place(one) == place(other) || a == b,
            _ => false,
        }
    }

    /// Releases the pages of all tensors whose name starts with `prefix`.
    pub(crate) fn release(&self, prefix: &str) {
        for (name, (file, entry)) in self.tensors.range(prefix.to_owned()..) {
            if !name.starts_with(prefix) {
                break;
            }
            self.files[*file].bytes.release(&entry.range);
        }
    }

    /// Releases all pages.
    pub(crate) fn release_all(&self) {
        self.release("");
    }

    /// Weights for candle's layers: each tensor is converted to f32 when it is loaded, and its pages are released.
    pub(crate) fn var_builder(self: &Arc<Self>) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(MappedBackend(Arc::clone(self))), DType::F32, Device::Cpu)
    }
}

/// The name without the parts that differ between checkpoints of one architecture.
fn canonical(name: &str) -> String {
    let name = ["roberta.", "bert."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    // Checkpoints converted from TensorFlow have other names for a norm's weight and bias.
    match name
        .strip_suffix(".gamma")
        .map(|stem| (stem, "weight"))
        .or_else(|| name.strip_suffix(".beta").map(|stem| (stem, "bias")))
    {
        Some((stem, part)) if stem.ends_with("LayerNorm") => format!("{stem}.{part}"),
        _ => name.to_owned(),
    }
}

struct MappedBackend(Arc<Weights>);

impl SimpleBackend for MappedBackend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            let (expected, got) = (shape, tensor.shape().clone());
            return Err(candle_core::Error::UnexpectedShape { msg: format!("shape of {name}"), expected, got });
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let missing = || candle_core::Error::CannotFindTensor { path: name.to_owned() };
        let tensor = self.0.read(name).ok_or_else(missing)?.to_tensor(dtype, device)?;
        self.0.release(name);
        Ok(tensor)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.tensors.contains_key(name)
    }
}
