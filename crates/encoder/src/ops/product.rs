//! Products with packed weights.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};
use half::{bf16, vec::HalfBitsVecExt};
use polylance_kernels::{Epilogue, Isa, PackedWeights, Rows, RowsMut, matmul};
use rayon::prelude::*;

use super::{numbers, rows};

/// The smallest number of rows that is worth a thread.
const MIN_THREAD_ROWS: usize = 32;

/// [`matmul`], with rows shared between the threads.
pub(crate) fn multiply(x: Rows<'_>, weights: &PackedWeights, epilogue: Epilogue<'_>, out: RowsMut<'_>) {
    let (n, k) = (weights.n(), weights.k());
    let part = |first: usize, rows: usize| x.slice(first * k..x.numbers().min((first + rows) * k));
    let share = |len: usize| (len / n).div_ceil(rayon::current_num_threads()).next_multiple_of(MIN_THREAD_ROWS);
    match out {
        RowsMut::F32(out) => {
            let share = share(out.len());
            for_each_part(out, share * n, |at, out| {
                matmul(Isa::detect(), part(at * share, share), weights, epilogue, RowsMut::F32(out));
            });
        }
        RowsMut::Bf16(out) => {
            let share = share(out.len());
            for_each_part(out, share * n, |at, out| {
                matmul(Isa::detect(), part(at * share, share), weights, epilogue, RowsMut::Bf16(out));
            });
        }
    }
}

/// Calls `work` on parts of `out`, in parallel if there are several.
fn for_each_part<T: Send>(out: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) + Send + Sync) {
    if out.len() <= size {
        work(0, out);
    } else {
        out.par_chunks_mut(size).enumerate().for_each(|(at, out)| work(at, out));
    }
}

/// A product with packed weights as an operation on tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) weights: &'a PackedWeights,
    pub(crate) gelu: bool,
    /// f32 or bf16.
    pub(crate) out: DType,
}

impl Product<'_> {
    /// `x Wᵀ + bias`, or GELU of that: `x` is `[rows, in]` in f32 or bf16, `bias` `[out]` in f32.
    pub(crate) fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        x.apply_op2_no_bwd(bias, self)
    }

    /// `residual + (x Wᵀ + bias)` in f32; `residual` is `[rows, out]` in f32.
    pub(crate) fn forward_residual(&self, x: &Tensor, bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
        x.apply_op3_no_bwd(bias, residual, self)
    }
}

impl CustomOp2 for Product<'_> {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (rows(x, xl)?, numbers(b, bl)?);
        let rows = xl.dims()[0];
        let len = rows * self.weights.n();
        let epilogue = if self.gelu { Epilogue::BiasGelu(bias) } else { Epilogue::Bias(bias) };
        let out = if self.out == DType::BF16 {
            // A vector of integer zeros is not written: the allocator returns zeroed pages.
            let mut out: Vec<bf16> = vec![0_u16; len].reinterpret_into();
            multiply(x, self.weights, epilogue, RowsMut::Bf16(&mut out));
            CpuStorage::BF16(out)
        } else {
            let mut out = vec![0.0; len];
            multiply(x, self.weights, epilogue, RowsMut::F32(&mut out));
            CpuStorage::F32(out)
        };
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
        let mut out = numbers(r, rl)?.to_vec();
        multiply(rows(x, xl)?, self.weights, Epilogue::BiasAdd(numbers(b, bl)?), RowsMut::F32(&mut out));
        Ok((CpuStorage::F32(out), rl.shape().clone()))
    }
}
