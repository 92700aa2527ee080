//! Rows of a head between the batch, where a row is far from the next, and memory of the kernel's own.

use crate::{
    lanes::{Lanes, Portable},
    number::Number,
};

/// Reads `rows` rows of `size` numbers, `stride` apart, as f32 one after another.
///
/// In the batch the rows of a head are a few lines each, at distances that often share the same places of the cache;
/// they are read there once.
///
/// # Safety
///
/// The rows can be read, and `to` has room for them.
#[inline(always)]
pub(super) unsafe fn gather<S: Lanes, N: Number>(
    simd: S,
    from: *const N,
    stride: usize,
    [rows, size]: [usize; 2],
    to: *mut f32,
) {
    for row in 0..rows {
        // SAFETY: the caller's promise: vectors up to the last whole one, then single numbers up to the row's end.
        unsafe {
            let (from, to) = (from.add(row * stride), to.add(row * size));
            let mut at = 0;
            while at + S::WIDTH <= size {
                simd.store(to.add(at), N::load(simd, from.add(at)));
                at += S::WIDTH;
            }
            while at < size {
                Portable::<1>.store(to.add(at), N::load(Portable::<1>, from.add(at)));
                at += 1;
            }
        }
    }
}

/// Writes `rows` rows of `size` f32, which lie one after another, `stride` apart.
///
/// # Safety
///
/// The rows can be read, and those of `to` written.
#[inline(always)]
pub(super) unsafe fn scatter<S: Lanes, N: Number>(
    simd: S,
    from: *const f32,
    [rows, size]: [usize; 2],
    to: *mut N,
    stride: usize,
) {
    for row in 0..rows {
        // SAFETY: the caller's promise: vectors up to the last whole one, then single numbers up to the row's end.
        unsafe {
            let (from, to) = (from.add(row * size), to.add(row * stride));
            let mut at = 0;
            while at + S::WIDTH <= size {
                N::store(simd, to.add(at), simd.load(from.add(at)));
                at += S::WIDTH;
            }
            while at < size {
                N::store(Portable::<1>, to.add(at), Portable::<1>.load(from.add(at)));
                at += 1;
            }
        }
    }
}
