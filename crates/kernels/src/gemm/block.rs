//! A block of rows by some panels: the part of a product that an instruction set is chosen for.

use super::{PANEL, Precision, strips, vectors::GROUP};
use crate::Isa;

/// Where the sums of a block begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At zero: the first chunk of `k`.
    Zero,
    /// At what the chunk before left in memory.
    Sums,
}

/// `sums[rows, GROUP * PANEL] += left[rows, words] · right[panels, words, PANEL]`. Where [`Precision::widens`], the left
/// side has two f32 for each word, and all that is said of its words is said of those.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// The first row's first word of the chunk.
    pub(super) left: *const u32,
    /// Words from a row to the next.
    pub(super) left_stride: usize,
    pub(super) rows: usize,
    /// The first panel's words of the chunk.
    pub(super) right: *const u32,
    /// Words from a panel to the next.
    pub(super) panel_stride: usize,
    /// At most [`GROUP`].
    pub(super) panels: usize,
    /// Words in the chunk, a multiple of 16.
    pub(super) words: usize,
    /// f32, or i32 of int8.
    pub(super) sums: *mut u32,
    pub(super) start: Start,
}

/// Sums from a row to the next.
pub(super) const SUM_STRIDE: usize = GROUP * PANEL;

impl Block {
    /// # Safety
    ///
    /// The pointers hold what the fields say; the CPU has `isa`.
    pub(super) unsafe fn multiply(&self, isa: Isa, precision: Precision) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match (isa, precision) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx, Precision::F32) => {
                    strips::avx512::f32(self);
                }
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512Bf16, Precision::Bf16) => strips::avx512::bf16(self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512Vnni | Isa::Avx512Bf16, Precision::Int8) => strips::avx512::int8(self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512 | Isa::Avx512Vnni, Precision::Bf16) => strips::avx512::bf16_by_f32(self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, Precision::F32) => strips::avx2::f32(self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, Precision::Bf16) => strips::avx2::bf16_by_f32(self),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512 | Isa::Avx2, Precision::Int8) => strips::avx2::int8(self),
                (_, Precision::F32) => strips::portable::f32(self),
                (_, Precision::Bf16) => strips::portable::bf16(self),
                (_, Precision::Int8) => strips::portable::int8(self),
            }
        }
    }
}
