//! Attention over packed sequences, by the CPU's own kernel.
//!
//! A device of several cores shares sequences between its threads: one's result is the same bits whichever computes it.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use half::{bf16, vec::HalfBitsVecExt};
use polylance_kernels::{Isa, Rows, SelfAttention};
use rayon::prelude::*;

use super::rows;

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
                let mut out: Vec<bf16> = vec![0_u16; tokens * hidden].reinterpret_into();
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
