//! A packed batch, and one head of one of its sequences.

use std::{marker::PhantomData, ops::Range};

use super::SelfAttention;

/// A batch whose sizes were checked.
#[derive(Debug)]
pub(super) struct Packed<'a, T> {
    attention: &'a SelfAttention,
    qkv: &'a [T],
    cu_seqlens: &'a [u32],
    context: *mut T,
    exclusive: PhantomData<&'a mut [T]>,
}

/// One head of one sequence, where it lies in the batch: `tokens` rows of `size` numbers each.
///
/// Made by [`Packed::heads`] only, so its rows can be read, and those of the context can be written by its owner: no
/// two heads share a number of the context, and one thread computes the batch.
#[derive(Debug)]
pub(super) struct Head<T> {
    pub(super) queries: *const T,
    pub(super) keys: *const T,
    pub(super) values: *const T,
    /// Numbers from a row to the next of queries, keys and values.
    pub(super) stride: usize,
    pub(super) context: *mut T,
    pub(super) context_stride: usize,
    pub(super) tokens: usize,
    pub(super) size: usize,
    /// Turns scores into exponents of two.
    pub(super) exponent_scale: f32,
}

impl<'a, T> Packed<'a, T> {
    /// # Panics
    ///
    /// As for [`SelfAttention::forward_f32`].
    pub(super) fn new(attention: &'a SelfAttention, qkv: &'a [T], cu_seqlens: &'a [u32], context: &'a mut [T]) -> Self {
        assert_eq!(cu_seqlens.first(), Some(&0), "the first sequence starts at token 0");
        assert!(cu_seqlens.is_sorted(), "sequences lie one after another");
        let tokens = cu_seqlens.last().map_or(0, |tokens| *tokens as usize);
        let hidden = attention.hidden();
        assert_eq!(qkv.len(), tokens * 3 * hidden, "a token has a query, a key and a value");
        assert_eq!(context.len(), tokens * hidden, "a token has a context");
        Self { attention, qkv, cu_seqlens, context: context.as_mut_ptr(), exclusive: PhantomData }
    }

    /// Numbers in a row of a head.
    pub(super) fn head_size(&self) -> usize {
        self.attention.head_size
    }

    /// Tokens of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        self.sequences().map(|tokens| tokens.len()).max().unwrap_or(0)
    }

    /// The heads of the first sequence that is not empty, then those of the next.
    #[inline(always)]
    pub(super) fn heads(&self) -> impl Iterator<Item = Head<T>> {
        let sequences = self.sequences().filter(|tokens| !tokens.is_empty());
        sequences.flat_map(move |tokens| (0..self.attention.heads).map(move |head| self.head(tokens.clone(), head)))
    }

    fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        self.cu_seqlens.windows(2).map(|borders| borders[0] as usize..borders[1] as usize)
    }

    fn head(&self, tokens: Range<usize>, head: usize) -> Head<T> {
        let (hidden, size) = (self.attention.hidden(), self.attention.head_size);
        let part = |part: usize| self.qkv[tokens.start * 3 * hidden + part * hidden + head * size..].as_ptr();
        Head {
            queries: part(0),
            keys: part(1),
            values: part(2),
            stride: 3 * hidden,
            // SAFETY: the context has a row for each token, and the head's slice is inside it.
            context: unsafe { self.context.add(tokens.start * hidden + head * size) },
            context_stride: hidden,
            tokens: tokens.len(),
            size,
            exponent_scale: self.attention.exponent_scale(),
        }
    }
}
