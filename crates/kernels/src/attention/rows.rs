//! Copies of the rows of a head: from the batch, where they are far apart, to contiguous memory, and back.

use crate::{
    element::Element,
    simd::{Portable, Simd},
};

/// Copies `rows` rows of `size` numbers, `stride` apart, to contiguous f32.
///
/// In the batch the rows of a head are a few cache lines each, at distances that often map to the same sets of the
/// cache, so they are read there only once.
///
/// # Safety
///
/// The rows can be read, and `to` has room for them.
#[inline(always)]
pub(super) unsafe fn gather<S: Simd, E: Element>(
    simd: S,
    from: *const E,
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
                simd.store(to.add(at), E::load(simd, from.add(at)));
                at += S::WIDTH;
            }
            while at < size {
                Portable::<1>.store(to.add(at), E::load(Portable::<1>, from.add(at)));
                at += 1;
            }
        }
    }
}

/// Copies `rows` contiguous rows of `size` f32 to rows `stride` apart.
///
/// # Safety
///
/// The rows can be read, and those of `to` written.
#[inline(always)]
pub(super) unsafe fn scatter<S: Simd, E: Element>(
    simd: S,
    from: *const f32,
    [rows, size]: [usize; 2],
    to: *mut E,
    stride: usize,
) {
    for row in 0..rows {
        // SAFETY: the caller's promise: vectors up to the last whole one, then single numbers up to the row's end.
        unsafe {
            let (from, to) = (from.add(row * size), to.add(row * stride));
            let mut at = 0;
            while at + S::WIDTH <= size {
                E::store(simd, to.add(at), simd.load(from.add(at)));
                at += S::WIDTH;
            }
            while at < size {
                E::store(Portable::<1>, to.add(at), Portable::<1>.load(from.add(at)));
                at += 1;
            }
        }
    }
}
