//! The CPU's own kernels as operations on tensors. On other devices they are candle's.

mod norm;
mod product;

pub(crate) use self::{
    norm::layer_norm,
    product::{Activation, Product, attention},
};
use candle_core::{CpuStorage, Layout, Result, bail};

/// A contiguous CPU tensor's numbers.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("expected a contiguous f32 tensor"),
    }
}
