//! The CPU's own kernels as operations on tensors. On other devices they are candle's.

mod attention;
mod norm;
mod product;

pub(crate) use self::{
    attention::attention,
    norm::layer_norm,
    product::{Activation, Product},
};
use candle_core::{CpuStorage, Layout, Result, bail};
use polylance_kernels::Rows;

/// A contiguous CPU tensor's numbers.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("expected a contiguous f32 tensor"),
    }
}

/// A contiguous tensor's rows.
fn rows<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Rows<'a>> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(Rows::F32(&numbers[start..end])),
        (CpuStorage::BF16(numbers), Some((start, end))) => Ok(Rows::Bf16(&numbers[start..end])),
        _ => bail!("expected a contiguous tensor in f32 or bf16"),
    }
}
