//! From sums to results: steps of int8 become numbers, the bias comes to them, and GELU or what is there already.

use std::ops::Range;

use half::bf16;

use super::{Epilogue, PackedWeights, Precision, RowsMut, left::Left};
use crate::{
    lanes::{Lanes, Portable},
    number::Number,
};

/// What becomes of the sums of a block of rows.
pub(super) struct Finish<'a> {
    pub(super) left: &'a Left<'a>,
    pub(super) weights: &'a PackedWeights,
    epilogue: Epilogue<'a>,
    /// The block's rows, whole, which are borrowed for `'a`.
    out: Out,
    rows: usize,
}

impl<'a> Finish<'a> {
    pub(super) fn new(
        left: &'a Left<'a>,
        weights: &'a PackedWeights,
        epilogue: Epilogue<'a>,
        out: RowsMut<'a>,
    ) -> Self {
        let rows = out.len() / weights.n();
        let out = match out {
            RowsMut::F32(out) => Out::F32(out.as_mut_ptr()),
            RowsMut::Bf16(out) => Out::Bf16(out.as_mut_ptr()),
        };
        Self { left, weights, epilogue, out, rows }
    }

    /// What becomes of those of some columns.
    pub(super) fn columns(&self, columns: Range<usize>) -> Columns<'a> {
        let (weights, n, len) = (self.weights, self.weights.n(), columns.len());
        assert!(columns.end <= n, "columns of the weights");
        let steps = (weights.precision() == Precision::Int8).then(|| Steps {
            rows: self.left.scales(),
            zeros: self.left.zeros(),
            columns: weights.scales()[columns.clone()].as_ptr(),
            sums: weights.column_sums()[columns.clone()].as_ptr(),
        });
        Columns {
            len,
            n,
            rows: self.rows,
            bias: self.epilogue.bias()[columns.clone()].as_ptr(),
            then: match self.epilogue {
                Epilogue::Bias(_) => Then::Write,
                Epilogue::BiasGelu(_) => Then::Gelu,
                Epilogue::BiasAdd(_) => Then::Add,
            },
            steps,
            // SAFETY: the column is in the first row.
            out: unsafe { self.out.add(columns.start) },
        }
    }
}

/// Some columns of all rows. Each pointer is to the first of `len` numbers, that of `out` in the first row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns<'a> {
    len: usize,
    /// Numbers from a row to the next.
    n: usize,
    rows: usize,
    bias: *const f32,
    then: Then,
    /// Of int8.
    steps: Option<Steps<'a>>,
    out: Out,
}

/// What is done when the bias is added.
#[derive(Debug, Clone, Copy)]
enum Then {
    Write,
    Gelu,
    Add,
}

#[derive(Debug, Clone, Copy)]
enum Out {
    F32(*mut f32),
    Bf16(*mut bf16),
}

impl Out {
    /// # Safety
    ///
    /// So many numbers further is inside the rows.
    #[inline(always)]
    unsafe fn add(self, numbers: usize) -> Self {
        match self {
            // SAFETY: the caller's promise.
            Self::F32(out) => Self::F32(unsafe { out.add(numbers) }),
            // SAFETY: the caller's promise.
            Self::Bf16(out) => Self::Bf16(unsafe { out.add(numbers) }),
        }
    }
}

/// What sums of steps stand for: `rows · columns · (sum − zeros · steps of the column)`.
#[derive(Debug, Clone, Copy)]
struct Steps<'a> {
    /// What a step of each row is worth, and which stands for 0.
    rows: &'a [f32],
    zeros: &'a [i32],
    /// What a step of each column is worth, and what all its steps are.
    columns: *const f32,
    sums: *const f32,
}

impl Columns<'_> {
    /// Finishes the sums of a row.
    ///
    /// # Safety
    ///
    /// `sums` has one for each column.
    #[inline(always)]
    pub(super) unsafe fn row<S: Lanes>(&self, simd: S, sums: *const u32, row: usize) {
        assert!(row < self.rows, "a row of the block");
        let step = self.steps.map(|steps| (steps.rows[row], steps.zeros[row] as f32));
        // SAFETY: the caller's promise, and there are so many rows.
        unsafe {
            match self.out.add(row * self.n) {
                Out::F32(out) => self.write(simd, sums, step, out),
                Out::Bf16(out) => self.write(simd, sums, step, out),
            }
        }
    }

    /// Writes a row to `out`. `step`: of int8, what a step of the row is worth, and which stands for 0.
    ///
    /// # Safety
    ///
    /// As for [`Columns::row`]; `out` is the row's first column.
    #[inline(always)]
    unsafe fn write<S: Lanes, N: Number>(&self, simd: S, sums: *const u32, step: Option<(f32, f32)>, out: *mut N) {
        let mut at = 0;
        // Loops, as the closures of iterators would not be compiled for the vectors of `S`.
        // SAFETY: vectors end with the last whole one, numbers with the last column.
        unsafe {
            while at + S::WIDTH <= self.len {
                self.finish(simd, sums, step, out, at);
                at += S::WIDTH;
            }
            while at < self.len {
                self.finish(Portable::<1>, sums, step, out, at);
                at += 1;
            }
        }
    }

    /// # Safety
    ///
    /// A vector from `at` ends with the last column or before; `out` is a row's first column.
    #[inline(always)]
    unsafe fn finish<S: Lanes, N: Number>(
        &self,
        simd: S,
        sums: *const u32,
        step: Option<(f32, f32)>,
        out: *mut N,
        at: usize,
    ) {
        // SAFETY: the caller's promise, and the pointers are to a number of each column.
        unsafe {
            let (sums, bias, out) = (sums.add(at), simd.load(self.bias.add(at)), out.add(at));
            let x = match (step, self.steps) {
                (Some((scale, zero)), Some(steps)) => {
                    let sums = simd.mul(simd.load_i32(sums.cast()), simd.load(steps.columns.add(at)));
                    let sums = simd.neg_mul_add(simd.splat(zero), simd.load(steps.sums.add(at)), sums);
                    simd.mul_add(simd.splat(scale), sums, bias)
                }
                _ => simd.add(simd.load(sums.cast()), bias),
            };
            let x = match self.then {
                Then::Write => x,
                Then::Gelu => N::gelu(simd, x),
                Then::Add => simd.add(N::load(simd, out), x),
            };
            N::store(simd, out, x);
        }
    }
}
