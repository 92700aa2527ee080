//! The epilogue: int8 sums are dequantized, the bias is added, then GELU or the previous output.

use std::ops::Range;

use half::bf16;

use super::{PackedWeights, Precision, RowsMut, lhs::PackedLhs};
use crate::{
    element::Element,
    simd::{Portable, Simd},
};

/// The operation on `x Wᵀ` before it is stored. A bias is `[n]`.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// `out = x Wᵀ + bias`.
    Bias(&'a [f32]),
    /// `out = gelu(x Wᵀ + bias)`, in the erf form.
    BiasGelu(&'a [f32]),
    /// `out += x Wᵀ + bias`.
    BiasAdd(&'a [f32]),
}

impl<'a> Epilogue<'a> {
    pub(super) fn bias(&self) -> &'a [f32] {
        match self {
            Self::Bias(bias) | Self::BiasGelu(bias) | Self::BiasAdd(bias) => bias,
        }
    }

    fn op(&self) -> EpilogueOp {
        match self {
            Self::Bias(_) => EpilogueOp::Write,
            Self::BiasGelu(_) => EpilogueOp::Gelu,
            Self::BiasAdd(_) => EpilogueOp::Add,
        }
    }
}

/// The step after the bias.
#[derive(Debug, Clone, Copy)]
enum EpilogueOp {
    Write,
    Gelu,
    Add,
}

/// The epilogue of a block of rows, with its operands and its output.
pub(super) struct BlockEpilogue<'a> {
    pub(super) lhs: &'a PackedLhs<'a>,
    pub(super) weights: &'a PackedWeights,
    epilogue: Epilogue<'a>,
    /// The block's rows, whole, which are borrowed for `'a`.
    out: OutputPtr,
    rows: usize,
}

impl<'a> BlockEpilogue<'a> {
    pub(super) fn new(
        lhs: &'a PackedLhs<'a>,
        weights: &'a PackedWeights,
        epilogue: Epilogue<'a>,
        out: RowsMut<'a>,
    ) -> Self {
        let rows = out.len() / weights.n();
        let out = match out {
            RowsMut::F32(out) => OutputPtr::F32(out.as_mut_ptr()),
            RowsMut::Bf16(out) => OutputPtr::Bf16(out.as_mut_ptr()),
        };
        Self { lhs, weights, epilogue, out, rows }
    }

    /// The epilogue of some of the columns.
    pub(super) fn columns(&self, columns: Range<usize>) -> ColumnsEpilogue<'a> {
        let (weights, n, len) = (self.weights, self.weights.n(), columns.len());
        assert!(columns.end <= n, "columns of the weights");
        let quantization = (weights.precision() == Precision::Int8).then(|| Quantization {
            row_scales: self.lhs.scales(),
            row_zeros: self.lhs.zeros(),
            column_scales: weights.scales()[columns.clone()].as_ptr(),
            column_sums: weights.column_sums()[columns.clone()].as_ptr(),
        });
        ColumnsEpilogue {
            len,
            n,
            rows: self.rows,
            bias: self.epilogue.bias()[columns.clone()].as_ptr(),
            op: self.epilogue.op(),
            quantization,
            // SAFETY: the column is in the first row.
            out: unsafe { self.out.add(columns.start) },
        }
    }
}

/// The epilogue of some columns of all rows. Each pointer is to the first of `len` numbers, that of `out` in the first
/// row.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColumnsEpilogue<'a> {
    len: usize,
    /// Numbers from a row to the next.
    n: usize,
    rows: usize,
    bias: *const f32,
    op: EpilogueOp,
    /// For int8.
    quantization: Option<Quantization<'a>>,
    out: OutputPtr,
}

#[derive(Debug, Clone, Copy)]
enum OutputPtr {
    F32(*mut f32),
    Bf16(*mut bf16),
}

impl OutputPtr {
    /// # Safety
    ///
    /// The pointer stays inside the rows.
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

/// Int8 sums stand for `row_scale · column_scale · (sum − row_zero · sum of the column's steps)`.
#[derive(Debug, Clone, Copy)]
struct Quantization<'a> {
    /// The value of one step of each row.
    row_scales: &'a [f32],
    /// The step of each row that stands for 0.
    row_zeros: &'a [i32],
    /// The value of one step of each column.
    column_scales: *const f32,
    /// The sum of each column's steps, times its scale.
    column_sums: *const f32,
}

impl ColumnsEpilogue<'_> {
    /// Writes a row from its sums.
    ///
    /// # Safety
    ///
    /// `sums` has one for each column.
    #[inline(always)]
    pub(super) unsafe fn row<S: Simd>(&self, simd: S, sums: *const u32, row: usize) {
        assert!(row < self.rows, "a row of the block");
        let row_step = self.quantization.map(|steps| (steps.row_scales[row], steps.row_zeros[row] as f32));
        // SAFETY: the caller's promise, and the row is one of the output.
        unsafe {
            match self.out.add(row * self.n) {
                OutputPtr::F32(out) => self.write(simd, sums, row_step, out),
                OutputPtr::Bf16(out) => self.write(simd, sums, row_step, out),
            }
        }
    }

    /// Writes a row to `out`. `row_step`: for int8, the row's scale and zero.
    ///
    /// # Safety
    ///
    /// As for [`ColumnsEpilogue::row`]; `out` is the row's first column.
    #[inline(always)]
    unsafe fn write<S: Simd, E: Element>(&self, simd: S, sums: *const u32, row_step: Option<(f32, f32)>, out: *mut E) {
        let mut at = 0;
        // Loops, as the closures of iterators would not be compiled for the vectors of `S`.
        // SAFETY: vectors end with the last whole one, numbers with the last column.
        unsafe {
            while at + S::WIDTH <= self.len {
                self.write_at(simd, sums, row_step, out, at);
                at += S::WIDTH;
            }
            while at < self.len {
                self.write_at(Portable::<1>, sums, row_step, out, at);
                at += 1;
            }
        }
    }

    /// # Safety
    ///
    /// A vector from `at` ends with the last column or before; `out` is a row's first column.
    #[inline(always)]
    unsafe fn write_at<S: Simd, E: Element>(
        &self,
        simd: S,
        sums: *const u32,
        row_step: Option<(f32, f32)>,
        out: *mut E,
        at: usize,
    ) {
        // SAFETY: the caller's promise, and the pointers are to a number of each column.
        unsafe {
            let (sums, bias, out) = (sums.add(at), simd.load(self.bias.add(at)), out.add(at));
            let x = match (row_step, self.quantization) {
                (Some((scale, zero)), Some(steps)) => {
                    let sums = simd.mul(simd.load_i32(sums.cast()), simd.load(steps.column_scales.add(at)));
                    let sums = simd.neg_mul_add(simd.splat(zero), simd.load(steps.column_sums.add(at)), sums);
                    simd.mul_add(simd.splat(scale), sums, bias)
                }
                _ => simd.add(simd.load(sums.cast()), bias),
            };
            let x = match self.op {
                EpilogueOp::Write => x,
                EpilogueOp::Gelu => E::gelu(simd, x),
                EpilogueOp::Add => simd.add(E::load(simd, out), x),
            };
            E::store(simd, out, x);
        }
    }
}
