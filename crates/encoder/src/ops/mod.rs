//! Element-wise steps between the matrix products.
//!
//! On the CPU each is one pass over its tensor, in place, in parallel by rows, and compiled for the widest vectors
//! the machine has (chosen at run time). On other devices they are candle's own kernels. A row's result depends
//! on that row alone.

#![expect(clippy::inline_always, reason = "code that is not inlined is compiled for narrow vectors")]

mod bias;
mod norm;
mod softmax;

pub(crate) use self::{
    bias::{bias, bias_gelu, bias_residual},
    norm::layer_norm,
    softmax::softmax,
};
use candle_core::{CpuStorage, Layout, Result, bail};
use rayon::prelude::*;

/// Numbers in one parallel task: enough to pay for it, little enough to stay in a core's cache.
const TASK: usize = 1 << 14;

/// A contiguous CPU tensor's numbers.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("expected a contiguous f32 tensor"),
    }
}

/// A contiguous CPU tensor's numbers, to be changed in place.
fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&mut numbers[start..end]),
        _ => bail!("expected a contiguous f32 tensor"),
    }
}

/// What is done to rows. A trait and not a closure, so that it is inlined where the vector width is known.
trait RowWork: Sync {
    /// `first` is the number of the first of these rows.
    fn run(&self, first: usize, rows: &mut [f32]);
}

struct Block<'a, W> {
    work: &'a W,
    first: usize,
    rows: &'a mut [f32],
}

impl<W: RowWork> pulp::NullaryFnOnce for Block<'_, W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.work.run(self.first, self.rows);
    }
}

/// Runs `work` on blocks of whole rows.
fn for_row_blocks(numbers: &mut [f32], width: usize, work: &impl RowWork) {
    let rows = (TASK / width.max(1)).max(1);
    let arch = pulp::Arch::new();
    if numbers.len() <= TASK {
        arch.dispatch(Block { work, first: 0, rows: numbers });
    } else {
        let blocks = numbers.par_chunks_mut(rows * width).enumerate();
        blocks.for_each(|(block, numbers)| arch.dispatch(Block { work, first: block * rows, rows: numbers }));
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    pub(super) fn random(shape: (usize, usize), scale: f32) -> Tensor {
        let mut state = 7_u64;
        let numbers: Vec<f32> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
        })
        .take(shape.0 * shape.1)
        .collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    pub(super) fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }
}
