//! From sums to results: steps of int8 become numbers, the bias comes to them, and GELU or the residual.

use std::ops::Range;

use half::bf16;

use super::{Epilogue, PackedWeights, Precision, RowsMut, block::SUM_STRIDE, left::Left};
use crate::{
    Isa,
    lanes::{Kernel, Lanes, Portable, run},
    math,
};

/// The sums of some columns of a block of rows.
pub(super) struct Finish<'a> {
    /// `[rows, SUM_STRIDE]`.
    pub(super) sums: &'a mut [u32],
    pub(super) rows: usize,
    pub(super) columns: Range<usize>,
    /// Columns of the whole result.
    pub(super) n: usize,
    /// The block's first row in the whole result.
    pub(super) first: usize,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) left: &'a Left<'a>,
    pub(super) weights: &'a PackedWeights,
}

impl Finish<'_> {
    pub(super) fn run(self, isa: Isa, out: &mut RowsMut<'_>) {
        run(isa, Finishing { finish: self, out });
    }
}

struct Finishing<'a, 'b, 'c> {
    finish: Finish<'a>,
    out: &'b mut RowsMut<'c>,
}

impl Kernel for Finishing<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) {
        let Self { finish, out } = self;
        let Finish { sums, rows, columns, n, first, epilogue, left, weights } = finish;
        for row in 0..rows {
            let sums = &mut sums[row * SUM_STRIDE..][..columns.len()];
            if weights.precision() == Precision::Int8 {
                let (scales, column_sums) =
                    (&weights.scales()[columns.clone()], &weights.column_sums()[columns.clone()]);
                to_numbers(sums, left.scales()[row], left.zeros()[row], scales, column_sums);
            }
            let place = (first + row) * n + columns.start..(first + row) * n + columns.end;
            let row = Row {
                sums: sums.as_ptr().cast(),
                bias: epilogue.bias()[columns.clone()].as_ptr(),
                residual: match epilogue {
                    Epilogue::BiasResidual { residual, .. } => Some(residual[place.clone()].as_ptr()),
                    Epilogue::Bias(_) | Epilogue::BiasGelu(_) => None,
                },
                gelu: matches!(epilogue, Epilogue::BiasGelu(_)),
                out: match out {
                    RowsMut::F32(out) => Out::F32(out[place].as_mut_ptr()),
                    RowsMut::Bf16(out) => Out::Bf16(out[place].as_mut_ptr()),
                },
            };
            let whole = columns.len() / S::WIDTH * S::WIDTH;
            // SAFETY: all slices are as long as the columns; vectors end with the last whole one.
            unsafe {
                (0..whole).step_by(S::WIDTH).for_each(|at| row.finish(simd, at));
                (whole..columns.len()).for_each(|at| row.finish(Portable::<1>, at));
            }
        }
    }
}

/// Puts numbers in the place of sums of steps.
#[inline(always)]
fn to_numbers(sums: &mut [u32], scale: f32, zero: i32, scales: &[f32], column_sums: &[i32]) {
    for ((sum, column_scale), column_sum) in sums.iter_mut().zip(scales).zip(column_sums) {
        let steps = sum.cast_signed() - zero * column_sum;
        *sum = (steps as f32 * (scale * column_scale)).to_bits();
    }
}

/// Some columns of a row, each pointer to as many numbers.
#[derive(Debug, Clone, Copy)]
struct Row {
    sums: *const f32,
    bias: *const f32,
    residual: Option<*const f32>,
    gelu: bool,
    out: Out,
}

#[derive(Debug, Clone, Copy)]
enum Out {
    F32(*mut f32),
    Bf16(*mut bf16),
}

impl Row {
    /// # Safety
    ///
    /// A vector from `at` ends inside the row.
    #[inline(always)]
    unsafe fn finish<S: Lanes>(&self, simd: S, at: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut x = simd.add(simd.load(self.sums.add(at)), simd.load(self.bias.add(at)));
            if let Some(residual) = self.residual {
                x = simd.add(simd.load(residual.add(at)), x);
            }
            match self.out {
                Out::F32(out) => simd.store(out.add(at), if self.gelu { math::gelu(simd, x) } else { x }),
                Out::Bf16(out) => simd.store_bf16(out.add(at), if self.gelu { math::gelu_bf16(simd, x) } else { x }),
            }
        }
    }
}
