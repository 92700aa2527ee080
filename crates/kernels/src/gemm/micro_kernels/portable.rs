//! Plain Rust: the reference for the other micro-kernels.

use half::bf16;

use super::{Block, Init, SUM_STRIDE};
use crate::gemm::PANEL;

/// # Safety
///
/// As for `dispatch::multiply`.
pub(in crate::gemm) unsafe fn f32(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { all_sums(block, |sum: f32, a, b| f32::from_bits(a).mul_add(f32::from_bits(b), sum)) };
}

/// # Safety
///
/// As for `dispatch::multiply`.
pub(in crate::gemm) unsafe fn bf16(block: &Block) {
    let pair = |group: u32| [group as u16, (group >> 16) as u16].map(|bits| bf16::from_bits(bits).to_f32());
    // SAFETY: the caller's promise.
    unsafe {
        all_sums(block, |sum: f32, a, b| {
            let ([a0, a1], [b0, b1]) = (pair(a), pair(b));
            a1.mul_add(b1, a0.mul_add(b0, sum))
        });
    }
}

/// # Safety
///
/// As for `dispatch::multiply`.
#[inline(always)]
pub(in crate::gemm) unsafe fn int8(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe {
        all_sums(block, |sum: i32, a, b| {
            let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            sum + products.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>()
        });
    }
}

/// A sum that is stored as four bytes.
trait Sum: Copy + Default {
    fn from_bits(bits: u32) -> Self;
    fn to_bits(self) -> u32;
}

impl Sum for f32 {
    fn from_bits(bits: u32) -> Self {
        Self::from_bits(bits)
    }

    fn to_bits(self) -> u32 {
        self.to_bits()
    }
}

impl Sum for i32 {
    fn from_bits(bits: u32) -> Self {
        bits.cast_signed()
    }

    fn to_bits(self) -> u32 {
        self.cast_unsigned()
    }
}

/// Computes every sum of the block, group by group, with `multiply_add(sum, lhs, rhs)`.
///
/// # Safety
///
/// As for `dispatch::multiply`.
#[inline(always)]
unsafe fn all_sums<T: Sum>(block: &Block, multiply_add: impl Fn(T, u32, u32) -> T) {
    for row in 0..block.rows {
        for panel in 0..block.panels {
            // SAFETY: the caller's promise.
            unsafe {
                let stored = block.sums.add(row * SUM_STRIDE + panel * PANEL);
                let mut sums = [T::default(); PANEL];
                if block.init == Init::Accumulate {
                    sums = std::array::from_fn(|column| T::from_bits(*stored.add(column)));
                }
                let lhs = block.lhs.add(row * block.lhs_stride);
                let rhs = block.rhs.add(panel * block.panel_stride);
                for group in 0..block.k_groups {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        *sum = multiply_add(*sum, *lhs.add(group), *rhs.add(group * PANEL + column));
                    }
                }
                for (column, sum) in sums.into_iter().enumerate() {
                    *stored.add(column) = sum.to_bits();
                }
            }
        }
    }
}
