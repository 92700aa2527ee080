//! Plain Rust: what the other forms compute.

use half::bf16;

use super::{Block, SUM_STRIDE, Start};
use crate::gemm::PANEL;

/// # Safety
///
/// As for [`Block::multiply`].
pub(in crate::gemm) unsafe fn f32(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { each(block, |sum: f32, a, b| f32::from_bits(a).mul_add(f32::from_bits(b), sum)) };
}

/// # Safety
///
/// As for [`Block::multiply`].
pub(in crate::gemm) unsafe fn bf16(block: &Block) {
    let halves = |word: u32| [word as u16, (word >> 16) as u16].map(|bits| bf16::from_bits(bits).to_f32());
    // SAFETY: the caller's promise.
    unsafe {
        each(block, |sum: f32, a, b| {
            let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
            a1.mul_add(b1, a0.mul_add(b0, sum))
        });
    }
}

/// # Safety
///
/// As for [`Block::multiply`].
#[inline(always)]
pub(in crate::gemm) unsafe fn int8(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe {
        each(block, |sum: i32, a, b| {
            let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            sum + products.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>()
        });
    }
}

/// A sum as a word.
trait Sum: Copy + Default {
    fn of(word: u32) -> Self;
    fn word(self) -> u32;
}

impl Sum for f32 {
    fn of(word: u32) -> Self {
        Self::from_bits(word)
    }

    fn word(self) -> u32 {
        self.to_bits()
    }
}

impl Sum for i32 {
    fn of(word: u32) -> Self {
        word.cast_signed()
    }

    fn word(self) -> u32 {
        self.cast_unsigned()
    }
}

/// # Safety
///
/// As for [`Block::multiply`].
#[inline(always)]
unsafe fn each<T: Sum>(block: &Block, add: impl Fn(T, u32, u32) -> T) {
    for row in 0..block.rows {
        for panel in 0..block.panels {
            // SAFETY: the caller's promise.
            unsafe {
                let place = block.sums.add(row * SUM_STRIDE + panel * PANEL);
                let mut sums = [T::default(); PANEL];
                if block.start == Start::Sums {
                    sums = std::array::from_fn(|column| T::of(*place.add(column)));
                }
                let left = block.left.add(row * block.left_stride);
                let right = block.right.add(panel * block.panel_stride);
                for word in 0..block.words {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        *sum = add(*sum, *left.add(word), *right.add(word * PANEL + column));
                    }
                }
                for (column, sum) in sums.into_iter().enumerate() {
                    *place.add(column) = sum.word();
                }
            }
        }
    }
}
