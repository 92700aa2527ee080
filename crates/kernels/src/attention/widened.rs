//! Attention on bf16 by way of f32, where there are no instructions for bf16.

use std::cell::RefCell;

use half::bf16;

use super::{
    floats::{self, Work},
    packed::{Head, Packed},
};
use crate::{
    Isa,
    aligned::Scratch,
    lanes::{Kernel, Lanes, Portable, run},
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Attends to a batch.
pub(super) fn forward(isa: Isa, batch: &Packed<'_, bf16>) {
    SCRATCH.with_borrow_mut(|scratch| run(isa, Forward { batch, scratch }));
}

struct Forward<'a, 'b> {
    batch: &'a Packed<'b, bf16>,
    scratch: &'a mut Scratch,
}

impl Kernel for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) {
        let (tokens, size) = (self.batch.longest(), self.batch.head_size());
        let [a, b, c] = Work::bytes(simd, tokens, size);
        let rows = 4 * tokens * size;
        let mut room = self.scratch.room(&[a, b, c, rows * size_of::<f32>()]);
        let mut work = Work::new(simd, &mut room, tokens, size);
        let rows = room.take::<f32>(rows).as_mut_ptr();
        for head in self.batch.heads() {
            // SAFETY: `heads` makes heads whose rows are inside the batch, and none is longer than the longest, so
            // four times its rows fit.
            unsafe { attend(simd, &head, &mut work, rows) };
        }
    }
}

/// # Safety
///
/// The rows of the head can be read and those of its context written; `work` has room for it, and `rows` for four
/// times its numbers.
#[inline(always)]
unsafe fn attend<S: Lanes>(simd: S, head: &Head<bf16>, work: &mut Work<'_>, rows: *mut f32) {
    let numbers = head.tokens * head.size;
    // SAFETY: the caller's promise: each quarter of `rows` holds the numbers of the head once.
    unsafe {
        let parts = [rows, rows.add(numbers), rows.add(2 * numbers), rows.add(3 * numbers)];
        for token in 0..head.tokens {
            for (from, to) in [head.queries, head.keys, head.values].into_iter().zip(parts) {
                widen(simd, from.add(token * head.stride), to.add(token * head.size), head.size);
            }
        }
        let [queries, keys, values, context] = parts;
        let wide = Head {
            queries,
            keys,
            values,
            stride: head.size,
            context,
            context_stride: head.size,
            tokens: head.tokens,
            size: head.size,
            exponent_scale: head.exponent_scale,
        };
        floats::attend(simd, &wide, work);
        for token in 0..head.tokens {
            let to = head.context.add(token * head.context_stride);
            round(simd, context.add(token * head.size), to, head.size);
        }
    }
}

/// # Safety
///
/// `from` is `count` numbers, and `to` has room for them.
#[inline(always)]
unsafe fn widen<S: Lanes>(simd: S, from: *const bf16, to: *mut f32, count: usize) {
    let whole = count / S::WIDTH * S::WIDTH;
    // SAFETY: vectors up to the last whole one, then single numbers up to `count`.
    unsafe {
        for at in (0..whole).step_by(S::WIDTH) {
            simd.store(to.add(at), simd.load_bf16(from.add(at)));
        }
        for at in whole..count {
            Portable::<1>.store(to.add(at), Portable::<1>.load_bf16(from.add(at)));
        }
    }
}

/// # Safety
///
/// `from` is `count` numbers, and `to` has room for them.
#[inline(always)]
pub(super) unsafe fn round<S: Lanes>(simd: S, from: *const f32, to: *mut bf16, count: usize) {
    let whole = count / S::WIDTH * S::WIDTH;
    // SAFETY: vectors up to the last whole one, then single numbers up to `count`.
    unsafe {
        for at in (0..whole).step_by(S::WIDTH) {
            simd.store_bf16(to.add(at), simd.load(from.add(at)));
        }
        for at in whole..count {
            Portable::<1>.store_bf16(to.add(at), Portable::<1>.load(from.add(at)));
        }
    }
}
