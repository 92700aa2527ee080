//! Products with packed weights, by the CPU's own kernels.
//!
//! A device of several cores shares rows between its threads: a row's result is the same bits whichever computes it.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};
use half::{bf16, vec::HalfBitsVecExt};
use polylance_kernels::{Epilogue, Isa, PackedWeights, Rows, RowsMut, matmul};
use rayon::prelude::*;

use super::{numbers, rows};

/// Rows that are worth a thread of their own.
const LEAST_ROWS: usize = 32;

/// What is done with a product before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Gelu,
}

/// A product with packed weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) weights: &'a PackedWeights,
    pub(crate) activation: Activation,
    /// f32 or bf16.
    pub(crate) out: DType,
}

impl Product<'_> {
    /// `activation(x Wᵀ + bias)`: `x` is `[rows, in]` in f32 or bf16, `bias` `[out]` in f32.
    pub(crate) fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        x.apply_op2_no_bwd(bias, self)
    }

    /// `residual + (x Wᵀ + bias)` in f32; `residual` is `[rows, out]` in f32.
    pub(crate) fn forward_residual(&self, x: &Tensor, bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
        x.apply_op3_no_bwd(bias, residual, self)
    }

    fn run(&self, x: Rows<'_>, bias: &[f32], residual: Option<&[f32]>) -> (CpuStorage, usize) {
        let (n, k) = (self.weights.n(), self.weights.k());
        let count = match x {
            Rows::F32(x) => x.len(),
            Rows::Bf16(x) => x.len(),
        } / k;
        let share = count.div_ceil(rayon::current_num_threads()).next_multiple_of(LEAST_ROWS);
        let epilogue = |first: usize, rows: usize| match (residual, self.activation) {
            (Some(residual), _) => Epilogue::BiasResidual { bias, residual: &residual[first * n..(first + rows) * n] },
            (None, Activation::None) => Epilogue::Bias(bias),
            (None, Activation::Gelu) => Epilogue::BiasGelu(bias),
        };
        let part = |first: usize, rows: usize| match x {
            Rows::F32(x) => Rows::F32(&x[first * k..(first + rows) * k]),
            Rows::Bf16(x) => Rows::Bf16(&x[first * k..(first + rows) * k]),
        };
        let multiply = |at: usize, out: RowsMut<'_>, rows: usize| {
            let first = at * share;
            matmul(Isa::detect(), part(first, rows), self.weights, epilogue(first, rows), out);
        };
        let storage = if self.out == DType::BF16 {
            // Zeros as integers come from the allocator.
            let mut out: Vec<bf16> = vec![0_u16; count * n].reinterpret_into();
            each(&mut out, share * n, |at, out| {
                let rows = out.len() / n;
                multiply(at, RowsMut::Bf16(out), rows);
            });
            CpuStorage::BF16(out)
        } else {
            let mut out = vec![0.0; count * n];
            each(&mut out, share * n, |at, out| {
                let rows = out.len() / n;
                multiply(at, RowsMut::F32(out), rows);
            });
            CpuStorage::F32(out)
        };
        (storage, count)
    }
}

/// Works on parts of `out`, side by side when there are several.
fn each<T: Send>(out: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) + Send + Sync) {
    if out.len() <= size {
        work(0, out);
    } else {
        out.par_chunks_mut(size).enumerate().for_each(|(at, out)| work(at, out));
    }
}

impl CustomOp2 for Product<'_> {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (out, rows) = self.run(rows(x, xl)?, numbers(b, bl)?, None);
        Ok((out, Shape::from((rows, self.weights.n()))))
    }
}

impl CustomOp3 for Product<'_> {
    fn name(&self) -> &'static str {
        "product-residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
        r: &CpuStorage,
        rl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (out, rows) = self.run(rows(x, xl)?, numbers(b, bl)?, Some(numbers(r, rl)?));
        Ok((out, Shape::from((rows, self.weights.n()))))
    }
}
