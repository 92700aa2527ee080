//! Attention in bf16 by tiles.
//!
//! As in the other forms, the columns of both products are queries: scores are keys by queries transposed, contexts are
//! values transposed by probabilities. So softmax writes the operand of the second product.

use std::{
    arch::x86_64::{_mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps},
    cell::RefCell,
};

use half::bf16;

use super::{
    packed::{Head, Packed},
    pairs::{LANES, mask, pair_values, softmax, transpose_queries, words, write_contexts},
};
use crate::{
    Isa,
    aligned::Scratch,
    amx::{TILE_ROW_BYTES, TILE_ROWS, TileConfig, Tiles, dot_bf16, load, store, zero},
    simd::{Avx512Bf16, Simd, Transpose},
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

static TILE_CONFIG: TileConfig = TileConfig::full();

/// Bytes of a tile whose rows are contiguous.
const TILE_BYTES: usize = TILE_ROWS * TILE_ROW_BYTES;

/// Numbers of bf16 in a row of a tile: the depth of one product of tiles.
const TILE_DEPTH: usize = TILE_ROW_BYTES / size_of::<bf16>();

/// Proof that this process may use tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileProof(());

impl TileProof {
    /// The proof, where `isa`, the CPU and the system allow tiles.
    pub(super) fn try_new(isa: Isa) -> Option<Self> {
        (isa.min(Isa::best()) >= Isa::Amx).then_some(Self(()))
    }
}

/// Computes the contexts of a batch. The size of a head is even.
pub(super) fn forward(simd: Avx512Bf16, _: TileProof, batch: &Packed<'_, bf16>) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the proof is that the tiles are permitted, and `simd` that the CPU has the other instructions.
        unsafe {
            let tiles = Tiles::configure(&TILE_CONFIG);
            forward_with(simd, &tiles, batch, scratch);
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn forward_with(simd: Avx512Bf16, _: &Tiles, batch: &Packed<'_, bf16>, scratch: &mut Scratch) {
    let (tokens, size) = (batch.longest(), batch.head_size());
    let depth = size.next_multiple_of(TILE_DEPTH) / 2;
    let padded = tokens.next_multiple_of(TILE_DEPTH);
    let lens = [
        padded * depth,
        LANES * size,
        size.next_multiple_of(LANES) * padded / 2,
        depth * LANES,
        padded * LANES,
        size.next_multiple_of(LANES) * LANES,
        LANES * size,
    ];
    let mut slices = scratch.slices(&lens.map(|len| len * size_of::<f32>()));
    let [keys, pairs, values, queries, scores, contexts, rows] = lens.map(|len| slices.take::<f32>(len));
    // The part of a tile's depth that no head writes must be zero. All other memory that is not written is not read, or
    // only into lanes that are discarded.
    queries.fill(0.0);
    let work = Workspace {
        keys: keys.as_mut_ptr(),
        pairs: pairs.as_mut_ptr(),
        values: values.as_mut_ptr(),
        queries: queries.as_mut_ptr(),
        scores: scores.as_mut_ptr(),
        contexts: contexts.as_mut_ptr(),
        rows: rows.as_mut_ptr(),
    };
    for head in batch.heads() {
        // SAFETY: `heads` makes heads whose rows are inside the batch, none is longer than the longest, which `work`
        // has room for, and the caller holds the tiles.
        unsafe { attend(simd, &head, work) };
    }
}

/// Memory for a head and a block of its queries, in words of four bytes. `depth` is half the size of a head, and
/// `padded` the number of tokens, both rounded up to whole tiles.
#[derive(Debug, Clone, Copy)]
struct Workspace {
    /// `[padded, depth]` pairs.
    keys: *mut f32,
    /// `[16, size]` pairs: values before they are transposed.
    pairs: *mut f32,
    /// `[size, padded / 2]` pairs.
    values: *mut f32,
    /// `[depth, 16]` pairs.
    queries: *mut f32,
    /// `[padded, 16]`: scores, then pairs of probabilities.
    scores: *mut f32,
    /// `[size, 16]`.
    contexts: *mut f32,
    /// `[16, size]`.
    rows: *mut f32,
}

/// # Safety
///
/// The rows of the head can be read and those of its context written, `work` has room for it, and tiles are
/// configured.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn attend(simd: Avx512Bf16, head: &Head<bf16>, work: Workspace) {
    // SAFETY: the caller's promise.
    unsafe {
        pack_keys(simd, head, work.keys);
        pack_values(simd, head, work.pairs, work.values);
        for query in (0..head.tokens).step_by(LANES) {
            attend_block(simd, head, query, work);
        }
    }
}

/// Copies the keys to `[tokens, depth]`, with zeros up to whole tiles.
///
/// # Safety
///
/// As for `attend`.
#[target_feature(enable = "avx512f")]
unsafe fn pack_keys(simd: Avx512Bf16, head: &Head<bf16>, to: *mut f32) {
    let depth = head.size.next_multiple_of(TILE_DEPTH) / 2;
    for token in 0..head.tokens {
        for word in (0..depth).step_by(LANES) {
            let mask = mask((head.size / 2).saturating_sub(word));
            // SAFETY: the mask ends at the key's last pair.
            unsafe {
                let pairs = _mm512_maskz_loadu_ps(mask, words(head.keys.add(token * head.stride)).add(word));
                simd.store(to.add(token * depth + word), pairs);
            }
        }
    }
}

/// Transposes the values to `[size, padded / 2]` pairs of tokens, with zeros for tokens beyond the last.
///
/// # Safety
///
/// As for `attend`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pack_values(simd: Avx512Bf16, head: &Head<bf16>, pairs: *mut f32, to: *mut f32) {
    let row = head.tokens.next_multiple_of(TILE_DEPTH) / 2;
    for first in (0..row).step_by(LANES) {
        // SAFETY: the blocks end at the last number, and the rows are filled up to whole blocks of pairs.
        unsafe {
            pair_values(head, first, LANES, pairs);
            for number in (0..head.size).step_by(LANES) {
                simd.transpose(Transpose {
                    from: pairs.add(number),
                    from_stride: head.size,
                    to: to.add(number * row + first),
                    to_stride: row,
                    rows: LANES,
                    columns: (head.size - number).min(LANES),
                });
            }
        }
    }
}

/// Computes the contexts of sixteen queries, from `query` on.
///
/// # Safety
///
/// As for `attend`, and `query` is a token of the head.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn attend_block(simd: Avx512Bf16, head: &Head<bf16>, query: usize, work: Workspace) {
    let depth = head.size.div_ceil(TILE_DEPTH);
    let pairs = head.tokens.div_ceil(TILE_DEPTH);
    // SAFETY: the caller's promise; tiles that reach beyond the tokens and the numbers stay inside `work`.
    unsafe {
        transpose_queries(simd, head, query, work.queries, LANES);
        let keys =
            Lhs { start: work.keys.cast(), row_stride: depth * TILE_ROW_BYTES, tiles: head.tokens.div_ceil(TILE_ROWS) };
        product(keys, work.queries.cast(), depth, work.scores.cast());

        let highest = highest(simd, work.scores, head.tokens);
        let [inverse] = softmax(simd, work.scores, head.tokens, head.exponent_scale, [highest]);
        for pair in head.tokens.div_ceil(2)..pairs * TILE_DEPTH / 2 {
            simd.store(work.scores.add(pair * LANES), simd.splat(0.0));
        }

        let values =
            Lhs { start: work.values.cast(), row_stride: pairs * TILE_ROW_BYTES, tiles: head.size.div_ceil(TILE_ROWS) };
        product(values, work.scores.cast(), pairs, work.contexts.cast());
        for number in 0..head.size {
            let at = work.contexts.add(number * LANES);
            simd.store(at, _mm512_mul_ps(simd.load(at), inverse));
        }
        write_contexts(simd, head, query, work.contexts, LANES, work.rows);
    }
}

/// The highest score of each query.
///
/// # Safety
///
/// `scores` is `[tokens, 16]`.
#[target_feature(enable = "avx512f")]
unsafe fn highest(simd: Avx512Bf16, scores: *const f32, tokens: usize) -> std::arch::x86_64::__m512 {
    // Four, because a maximum has a longer latency than a load.
    let mut maxima = [_mm512_set1_ps(f32::NEG_INFINITY); 4];
    // SAFETY: tokens up to the last.
    unsafe {
        for token in 0..tokens / 4 {
            for (i, maxima) in maxima.iter_mut().enumerate() {
                *maxima = _mm512_max_ps(simd.load(scores.add((4 * token + i) * LANES)), *maxima);
            }
        }
        for token in tokens / 4 * 4..tokens {
            maxima[0] = _mm512_max_ps(simd.load(scores.add(token * LANES)), maxima[0]);
        }
    }
    _mm512_max_ps(_mm512_max_ps(maxima[0], maxima[1]), _mm512_max_ps(maxima[2], maxima[3]))
}

/// Rows of pairs, in tiles of sixteen rows, with `row_stride` bytes from a row to the next.
#[derive(Debug, Clone, Copy)]
struct Lhs {
    start: *const u8,
    row_stride: usize,
    tiles: usize,
}

/// `to = lhs · rhs`, where `rhs` is `depth` tiles and `to` one tile for each of `lhs`.
///
/// # Safety
///
/// All tiles can be read and written, and tiles are configured.
#[inline(always)]
unsafe fn product(lhs: Lhs, rhs: *const u8, depth: usize, to: *mut u8) {
    for first in (0..lhs.tiles).step_by(4) {
        // SAFETY: the caller's promise; the group ends at the last tile.
        unsafe {
            let start = lhs.start.add(first * TILE_ROWS * lhs.row_stride);
            let to = to.add(first * TILE_BYTES);
            match lhs.tiles - first {
                1 => group::<1>(start, lhs.row_stride, rhs, depth, to),
                2 => group::<2>(start, lhs.row_stride, rhs, depth, to),
                3 => group::<3>(start, lhs.row_stride, rhs, depth, to),
                _ => group::<4>(start, lhs.row_stride, rhs, depth, to),
            }
        }
    }
}

/// G tiles of `product`, in G accumulators: the products of a single one would wait for each other.
///
/// # Safety
///
/// As for `product`.
#[inline(always)]
unsafe fn group<const G: usize>(lhs: *const u8, row_stride: usize, rhs: *const u8, depth: usize, to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        zero::<0>();
        zero::<1>();
        zero::<2>();
        zero::<3>();
        for step in 0..depth {
            load::<4>(rhs.add(step * TILE_BYTES), TILE_ROW_BYTES);
            let lhs = lhs.add(step * TILE_ROW_BYTES);
            load::<5>(lhs, row_stride);
            dot_bf16::<0, 5, 4>();
            if G > 1 {
                load::<6>(lhs.add(TILE_ROWS * row_stride), row_stride);
                dot_bf16::<1, 6, 4>();
            }
            if G > 2 {
                load::<7>(lhs.add(2 * TILE_ROWS * row_stride), row_stride);
                dot_bf16::<2, 7, 4>();
            }
            if G > 3 {
                load::<5>(lhs.add(3 * TILE_ROWS * row_stride), row_stride);
                dot_bf16::<3, 5, 4>();
            }
        }
        store::<0>(to, TILE_ROW_BYTES);
        if G > 1 {
            store::<1>(to.add(TILE_BYTES), TILE_ROW_BYTES);
        }
        if G > 2 {
            store::<2>(to.add(2 * TILE_BYTES), TILE_ROW_BYTES);
        }
        if G > 3 {
            store::<3>(to.add(3 * TILE_BYTES), TILE_ROW_BYTES);
        }
    }
}
