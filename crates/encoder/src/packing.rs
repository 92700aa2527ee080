//! Packing of a linear map's weights for our CPU kernels.

use std::sync::Arc;

use candle_core::{CpuStorage, Storage, Tensor, bail};
use candle_nn::VarBuilder;
use polylance_kernels::{PackedWeights, Precision};

use crate::{error::Result, weights::Weights};

/// The precision that weights are packed in, and the files that they are read from.
///
/// A large model is packed from its mapped files row by row, without an intermediate copy: a matrix in f32 would be new
/// memory, and its page faults take longer than the packing.
#[derive(Debug, Clone)]
pub struct Packing {
    precision: Precision,
    files: Option<Arc<Weights>>,
}

impl From<Precision> for Packing {
    fn from(precision: Precision) -> Self {
        Self { precision, files: None }
    }
}

impl Packing {
    /// Reads from `files`, which have the names of the `VarBuilder`.
    pub(crate) fn from_files(precision: Precision, files: &Arc<Weights>) -> Self {
        Self { precision, files: Some(Arc::clone(files)) }
    }

    /// Packs matrices of `[outputs, inputs]`, one below the other: `weight` of each of `parts`.
    pub(crate) fn pack(&self, inputs: usize, outputs: usize, parts: &[VarBuilder<'_>]) -> Result<PackedWeights> {
        let Some(files) = &self.files else {
            let weights = parts.iter().map(|vb| vb.get((outputs, inputs), "weight"));
            let weights = weights.collect::<candle_core::Result<Vec<_>>>()?;
            return Ok(pack_tensors(self.precision, inputs, outputs, &weights)?);
        };
        let names: Vec<_> = parts.iter().map(|vb| vb.pp("weight").prefix()).collect();
        let view = |name: &String| {
            let view = files.read(name).ok_or_else(|| candle_core::Error::CannotFindTensor { path: name.clone() })?;
            if view.shape != [outputs, inputs] {
                let (expected, got) = ((outputs, inputs).into(), view.shape.into());
                return Err(candle_core::Error::UnexpectedShape { msg: format!("shape of {name}"), expected, got });
            }
            Ok(view)
        };
        let views = names.iter().map(view).collect::<candle_core::Result<Vec<_>>>()?;
        let packed = PackedWeights::new(self.precision, parts.len() * outputs, inputs, |row, to| {
            views[row / outputs].row(row % outputs, to);
        });
        for name in &names {
            files.release(name);
        }
        Ok(packed)
    }
}

/// Packs matrices in f32, each `[outputs, inputs]`, one below the other.
fn pack_tensors(
    precision: Precision,
    inputs: usize,
    outputs: usize,
    parts: &[Tensor],
) -> candle_core::Result<PackedWeights> {
    let stored: Vec<_> = parts.iter().map(Tensor::storage_and_layout).collect();
    let numbers = stored.iter().map(|(storage, layout)| match (&**storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("expected weights in f32 on the CPU"),
    });
    let numbers = numbers.collect::<candle_core::Result<Vec<_>>>()?;
    Ok(PackedWeights::new(precision, parts.len() * outputs, inputs, |row, to| {
        to.copy_from_slice(&numbers[row / outputs][row % outputs * inputs..][..inputs]);
    }))
}
