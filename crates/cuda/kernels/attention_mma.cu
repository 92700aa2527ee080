// Attention within packed sequences on tensor cores by mma.sync: bf16 and f16 on sm_80 and later.
//
// qkv is [tokens, 3 heads D], with the queries of all heads first, then their keys, then their values; out is
// [tokens, heads D]. Sequence s has the tokens cu_seqlens[s] to cu_seqlens[s + 1] - 1. A block computes one head of one
// tile {sequence, first query row within it} of up to 64 query rows, 16 a warp; it writes no row beyond the sequence.
//
// Keys and values arrive in tiles of 64, the next one while this one is in use, and the softmax runs online in f32, as
// in FlashAttention-2. The probabilities are rounded to 16 bits for the second product; the division is at the end.
// Tiles of keys begin at the start of the sequence wherever the tile of queries begins, and a row takes part in every
// product alone: its bits depend on its sequence and its position in it. Rows of another sequence are not read.
#include "launch.h"
#include "mma.cuh"

namespace attention_mma {

constexpr int kKeys = 64;
constexpr int kWarpRows = 16;

// A tile of keys or values in shared memory: 64 rows of D numbers. The 16 bytes `chunk` of a row lie at the chunk
// `chunk ^ flip(row)`, so that 8 rows of one column of chunks use all banks.
template <int D> struct KeyTile {
  static constexpr int kChunks = D / 8;
  static constexpr int kRowBytes = D * 2;
  static constexpr int kBytes = kKeys * kRowBytes;
  // Rows of 64, 128, 160, 192 and 256 bytes: the largest power of two, up to 8 chunks, that divides a row.
  static constexpr int kPeriod = kChunks % 8 == 0 ? 8 : kChunks % 4 == 0 ? 4 : 2;
  static DEVICE int flip(int row) { return row / (8 / kPeriod) & (kPeriod - 1); }
  static DEVICE int offset(int row, int chunk) { return row * kRowBytes + ((chunk ^ flip(row)) << 4); }
  // What `chunk` adds to offset(row, 0 or 1) for an even chunk: known at compile time where it can be.
  static DEVICE uint32_t at(uint32_t offset, int chunk) {
    return (offset ^ (uint32_t)(chunk & (kPeriod - 1)) << 4) + ((chunk & ~(kPeriod - 1)) << 4);
  }
};

DEVICE float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

template <class T, int D>
DEVICE void attention(const T* qkv, const uint32_t* cu_seqlens, const uint2* tiles, T* out, int heads, float scale,
                      int causal) {
  using Tile = KeyTile<D>;
  static_assert(4 * Tile::kBytes == kAttentionSharedBytesPerHeadSize * D, "launch.h names another size");
  DYNAMIC_SHARED(shared);
  int thread = threadIdx.x, lane = thread & 31, quad_row = lane / 4, quad_column = lane % 4 * 2;
  uint2 tile = tiles[blockIdx.x];
  uint32_t start = cu_seqlens[tile.x], pitch = 3 * heads * D;
  int keys = (int)(cu_seqlens[tile.x + 1] - start), first_row = (int)tile.y;
  if (first_row >= keys) return;
  // No row of the tile sees a key beyond it; so this ends the rows of the tile, too.
  if (causal) keys = min(keys, first_row + kAttentionTileRows);
  const T* head = qkv + (size_t)start * pitch + blockIdx.y * D;

  // Two tiles of keys, then two of values. Rows beyond the last key are zero. kPeriod neighbouring threads copy
  // neighbouring chunks of a row, and write to different banks.
  uint32_t buffers = shared_address(shared);
  constexpr int kRowsAtOnce = kAttentionThreads / Tile::kPeriod;
  int copied_row = thread / Tile::kPeriod, copied_chunk = thread % Tile::kPeriod;
  const T* copy_from = head + heads * D + copied_row * pitch + copied_chunk * 8;
  uint32_t copy_to = buffers + Tile::offset(copied_row, copied_chunk);
  auto fetch = [&](int first_key) {
    const T* tile_from = copy_from + (size_t)first_key * pitch;
    uint32_t tile_to = copy_to + (first_key & kKeys) * Tile::kRowBytes;
#pragma unroll
    for (int row = 0; row < kKeys; row += kRowsAtOnce) {
      bool inside = first_key + copied_row + row < keys;
      const T* from = tile_from + row * pitch;
      uint32_t to = tile_to + row * Tile::kRowBytes;
#pragma unroll
      for (int chunk = 0; chunk < Tile::kChunks; chunk += Tile::kPeriod) {
        copy16_async(to + chunk * 16, from + chunk * 8, inside);
        copy16_async(to + chunk * 16 + 2 * Tile::kBytes, from + heads * D + chunk * 8, inside);
      }
    }
  };
  fetch(0);
  commit_copies();
  if (kKeys < keys) fetch(kKeys);
  commit_copies();

  // This lane has two query rows, 8 apart. Queries beyond the tile's rows that exist are zero.
  int warp = __shfl_sync(0xffffffffu, thread >> 5, 0);  // one value, as the compiler then sees
  int warp_row = first_row + warp * kWarpRows, row = warp_row + quad_row;
  uint32_t q[D / 16][4];
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int r = row + j % 2 * 8;
      q[i][j] = r < keys ? __ldg((const uint32_t*)(head + (size_t)r * pitch + i * 16 + j / 2 * 8 + quad_column)) : 0;
    }
  }

  uint32_t keys_at = buffers + Tile::offset((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
  uint32_t values_at = buffers + 2 * Tile::kBytes + Tile::offset(lane & 15, lane >> 4);
  const float scale2 = scale * 1.4426950408889634f;  // exp(x) is exp2(x log2(e))
  float row_max[2] = {-INFINITY, -INFINITY};
  // The columns of the output, and last the sum of the probabilities: the product with a column of ones.
  float accumulators[D / 8 + 1][4];
  const uint32_t ones = pack2<T>(1.f, 1.f);
#pragma unroll
  for (int i = 0; i <= D / 8; i++)
#pragma unroll
    for (int c = 0; c < 4; c++) accumulators[i][c] = 0.f;

#pragma unroll 1
  for (int first_key = 0; first_key < keys; first_key += kKeys) {
    if (first_key == 0) wait_copies<1>();
    else wait_copies<0>();
    __syncthreads();
    // All warps are done with the tile before, so the next one may take its buffer.
    if (first_key > 0 && first_key + kKeys < keys) {
      fetch(first_key + kKeys);
      commit_copies();
    }
    if (warp_row >= keys || (causal && first_key >= warp_row + kWarpRows)) continue;
    uint32_t buffer = (first_key & kKeys) * Tile::kRowBytes;

    const float zero[4] = {0.f, 0.f, 0.f, 0.f};
    float scores[kKeys / 8][4];
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
#pragma unroll
      for (int j = 0; j < kKeys / 16; j++) {
        uint32_t k[4];
        load_matrices(k, Tile::at(keys_at, i * 2) + buffer + j * 16 * Tile::kRowBytes);
        const float(&a)[4] = *(i ? &scores[j * 2] : &zero), (&b)[4] = *(i ? &scores[j * 2 + 1] : &zero);
        mma_16x8x16<T>(scores[j * 2], q[i], k[0], k[1], a);
        mma_16x8x16<T>(scores[j * 2 + 1], q[i], k[2], k[3], b);
      }
    }
    if (first_key + kKeys > (causal ? min(keys, warp_row + 1) : keys)) {
      // The first key that each of the lane's rows does not see.
      int ends[2] = {causal ? min(keys, row + 1) : keys, causal ? min(keys, row + 9) : keys};
#pragma unroll
      for (int i = 0; i < kKeys / 8; i++)
#pragma unroll
        for (int c = 0; c < 4; c++)
          if (first_key + i * 8 + quad_column + c % 2 >= ends[c / 2]) scores[i][c] = -INFINITY;
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
      float highest = row_max[r];
#pragma unroll
      for (int i = 0; i < kKeys / 8; i++) highest = fmaxf(highest, fmaxf(scores[i][r * 2], scores[i][r * 2 + 1]));
      highest = quad_max(highest);
      float rescale = exp2_approximate((row_max[r] - highest) * scale2), shift = -highest * scale2;
      row_max[r] = highest;
#pragma unroll
      for (int i = 0; i < kKeys / 8; i++)
#pragma unroll
        for (int c = r * 2; c < r * 2 + 2; c++) scores[i][c] = exp2_approximate(fmaf(scores[i][c], scale2, shift));
#pragma unroll
      for (int i = 0; i <= D / 8; i++) {
        accumulators[i][r * 2] *= rescale;
        accumulators[i][r * 2 + 1] *= rescale;
      }
    }

#pragma unroll
    for (int i = 0; i < kKeys / 16; i++) {
      // Two accumulators of the first product lie as an operand of the second one.
      const float(&a)[4] = scores[i * 2], (&b)[4] = scores[i * 2 + 1];
      uint32_t p[4] = {pack2<T>(a[0], a[1]), pack2<T>(a[2], a[3]), pack2<T>(b[0], b[1]), pack2<T>(b[2], b[3])};
#pragma unroll
      for (int j = 0; j < D / 16; j++) {
        uint32_t v[4];
        load_matrices_transposed(v, Tile::at(values_at, j * 2) + buffer + i * 16 * Tile::kRowBytes);
        mma_16x8x16<T>(accumulators[j * 2], p, v[0], v[1], accumulators[j * 2]);
        mma_16x8x16<T>(accumulators[j * 2 + 1], p, v[2], v[3], accumulators[j * 2 + 1]);
      }
      mma_16x8x16<T>(accumulators[D / 8], p, ones, ones, accumulators[D / 8]);
    }
  }

  // Through shared memory that is the warp's own, to write whole rows.
  __syncthreads();
  unsigned char* staged = shared + warp * kWarpRows * Tile::kRowBytes;
  float reciprocals[2] = {1.f / accumulators[D / 8][0], 1.f / accumulators[D / 8][2]};
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      *(uint32_t*)(staged + Tile::offset(quad_row + r * 8, i) + quad_column * 2) =
          pack2<T>(accumulators[i][r * 2] * reciprocals[r], accumulators[i][r * 2 + 1] * reciprocals[r]);
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kWarpRows * Tile::kChunks / 32; i++) {
    int id = lane + i * 32, r = id / Tile::kChunks, chunk = id % Tile::kChunks;
    if (warp_row + r >= keys) continue;
    T* to = out + ((size_t)(start + warp_row + r) * heads + blockIdx.y) * D + chunk * 8;
    *(uint4*)to = *(const uint4*)(staged + Tile::offset(r, chunk));
  }
}

}  // namespace attention_mma

// With the number of blocks that are to fit on a multiprocessor of an A100: 4 of 40 KB, for one, fill its 164 KB.
#define ATTENTION_KERNEL(T, D, blocks)                                                                                \
  KERNEL __launch_bounds__(kAttentionThreads, blocks)                                                                 \
      attention_##T##_##D(const T* qkv, const uint32_t* cu_seqlens, const uint2* tiles, T* out, int heads,            \
                          float scale, int causal) {                                                                  \
    attention_mma::attention<T, D>(qkv, cu_seqlens, tiles, out, heads, scale, causal);                                \
  }                                                                                                                   \
  HOST_KERNEL(attention_##T##_##D)

ATTENTION_KERNEL(bf16, 32, 5)
ATTENTION_KERNEL(bf16, 64, 4)
ATTENTION_KERNEL(bf16, 80, 4)
ATTENTION_KERNEL(bf16, 96, 3)
ATTENTION_KERNEL(bf16, 128, 2)
ATTENTION_KERNEL(f16, 32, 5)
ATTENTION_KERNEL(f16, 64, 4)
ATTENTION_KERNEL(f16, 80, 4)
ATTENTION_KERNEL(f16, 96, 3)
ATTENTION_KERNEL(f16, 128, 2)
#undef ATTENTION_KERNEL
