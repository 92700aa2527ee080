//! Our CPU kernels, with their rows shared between the threads of a device. A row's result has the same bits whichever
//! thread computes it.

mod attention;
mod norm;
mod product;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use polylance_kernels::Rows;

pub(crate) use self::{
    attention::attend,
    norm::{layer_norm, share_rows},
    product::{Product, multiply},
};

/// Calls `work` with the numbers of a contiguous f32 tensor on the CPU.
pub(crate) fn with_numbers<T>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(work(numbers(storage, layout)?)),
        _ => bail!("expected a tensor on the CPU"),
    }
}

/// The numbers of a contiguous f32 tensor.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("expected a contiguous f32 tensor"),
    }
}

/// The rows of a contiguous tensor in f32 or bf16.
fn rows<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Rows<'a>> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(Rows::F32(&numbers[start..end])),
        (CpuStorage::BF16(numbers), Some((start, end))) => Ok(Rows::Bf16(&numbers[start..end])),
        _ => bail!("expected a contiguous tensor in f32 or bf16"),
    }
}
