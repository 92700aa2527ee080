//! Attention over packed sequences.

use half::bf16;
use polylance_kernels::{Isa, SelfAttention};
use rayon::prelude::*;

/// An element type that attention computes in.
pub(crate) trait AttentionElement: Sized + Send + Sync {
    fn attend(attention: &SelfAttention, qkv: &[Self], cu_seqlens: &[u32], context: &mut [Self]);
}

impl AttentionElement for f32 {
    fn attend(attention: &SelfAttention, qkv: &[Self], cu_seqlens: &[u32], context: &mut [Self]) {
        attention.forward_f32(Isa::detect(), qkv, cu_seqlens, context);
    }
}

impl AttentionElement for bf16 {
    fn attend(attention: &SelfAttention, qkv: &[Self], cu_seqlens: &[u32], context: &mut [Self]) {
        attention.forward_bf16(Isa::detect(), qkv, cu_seqlens, context);
    }
}

/// Attention of all tokens of each sequence to its whole sequence: `[tokens, 3 * hidden]` to `[tokens, hidden]`. Each
/// thread computes whole sequences.
pub(crate) fn attend<T: AttentionElement>(attention: &SelfAttention, qkv: &[T], cu_seqlens: &[u32], context: &mut [T]) {
    let threads = rayon::current_num_threads();
    if threads == 1 {
        return T::attend(attention, qkv, cu_seqlens, context);
    }
    let hidden = attention.hidden();
    let share = (context.len() / hidden).div_ceil(threads).max(1) as u32;
    let (mut parts, mut rest, mut first) = (Vec::new(), context, 0);
    while first + 1 < cu_seqlens.len() {
        let start = cu_seqlens[first];
        let full = |end: &u32| end - start >= share;
        let last = cu_seqlens[first + 1..].iter().position(full);
        let last = last.map_or(cu_seqlens.len() - 1, |at| first + 1 + at);
        let borders: Vec<u32> = cu_seqlens[first..=last].iter().map(|border| border - start).collect();
        let (start, end) = (start as usize, cu_seqlens[last] as usize);
        let (part, remaining) = rest.split_at_mut((end - start) * hidden);
        parts.push((&qkv[start * 3 * hidden..end * 3 * hidden], borders, part));
        (rest, first) = (remaining, last);
    }
    parts.into_par_iter().for_each(|(qkv, borders, context)| T::attend(attention, qkv, &borders, context));
}
