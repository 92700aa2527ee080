//! Products with packed weights, and attention, by the CPU's own kernels.
//!
//! A device of several cores shares rows, or sequences, between its threads: a row's result is the same bits whichever
//! thread computes it.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;
use polylance_kernels::{Epilogue, Isa, PackedWeights, Rows, RowsMut, SelfAttention, matmul};
use rayon::prelude::*;

use super::numbers;

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
            let mut out = vec![bf16::ZERO; count * n];
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

/// A contiguous tensor's rows.
fn rows<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Rows<'a>> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(Rows::F32(&numbers[start..end])),
        (CpuStorage::BF16(numbers), Some((start, end))) => Ok(Rows::Bf16(&numbers[start..end])),
        _ => bail!("expected a contiguous tensor in f32 or bf16"),
    }
}

/// Attention of all tokens of each sequence to all of it: `[tokens, 3 * hidden]` to `[tokens, hidden]`, in f32 or bf16.
pub(crate) fn attention(qkv: &Tensor, attention: &SelfAttention, cu_seqlens: &[u32]) -> Result<Tensor> {
    qkv.apply_op1_no_bwd(&Attention { attention, cu_seqlens })
}

struct Attention<'a> {
    attention: &'a SelfAttention,
    cu_seqlens: &'a [u32],
}

impl CustomOp1 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let hidden = self.attention.hidden();
        let tokens = self.cu_seqlens.last().map_or(0, |tokens| *tokens as usize);
        let isa = Isa::detect();
        let out = match rows(qkv, layout)? {
            Rows::F32(qkv) => {
                let mut out = vec![0.0; tokens * hidden];
                self.each(qkv, &mut out, |qkv, borders, out| self.attention.forward_f32(isa, qkv, borders, out));
                CpuStorage::F32(out)
            }
            Rows::Bf16(qkv) => {
                let mut out = vec![bf16::ZERO; tokens * hidden];
                self.each(qkv, &mut out, |qkv, borders, out| self.attention.forward_bf16(isa, qkv, borders, out));
                CpuStorage::BF16(out)
            }
        };
        Ok((out, Shape::from((tokens, hidden))))
    }
}

impl Attention<'_> {
    /// Shares whole sequences between the threads.
    fn each<T: Sync + Send>(&self, qkv: &[T], out: &mut [T], attend: impl Fn(&[T], &[u32], &mut [T]) + Send + Sync) {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return attend(qkv, self.cu_seqlens, out);
        }
        let hidden = self.attention.hidden();
        let share = (out.len() / hidden).div_ceil(threads).max(1) as u32;
        let (mut parts, mut rest, mut first) = (Vec::new(), out, 0);
        while first + 1 < self.cu_seqlens.len() {
            let start = self.cu_seqlens[first];
            let full = |end: &u32| end - start >= share;
            let last = self.cu_seqlens[first + 1..].iter().position(full);
            let last = last.map_or(self.cu_seqlens.len() - 1, |at| first + 1 + at);
            let borders: Vec<u32> = self.cu_seqlens[first..=last].iter().map(|border| border - start).collect();
            let (start, end) = (start as usize, self.cu_seqlens[last] as usize);
            let (part, behind) = rest.split_at_mut((end - start) * hidden);
            parts.push((&qkv[start * 3 * hidden..end * 3 * hidden], borders, part));
            (rest, first) = (behind, last);
        }
        parts.into_par_iter().for_each(|(qkv, borders, out)| attend(qkv, &borders, out));
    }
}
