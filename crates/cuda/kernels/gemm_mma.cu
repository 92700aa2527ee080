// out = x w^T + bias on tensor cores by mma.sync: bf16 and f16 on sm_80 and later.
//
// x is [m, k], w is [n, k] and out is [m, n], all row-major; k is a multiple of 8, and so is n where out is 16-bit.
// The accumulator and the bias (which may be null) are f32; GELU is applied in f32; the result is rounded once.
// Up to the next multiple of 128, rows of x beyond m are read, and never used; nothing beyond n or k is read.
//
// A block of 4 warps makes a tile of 128x128, a warp 64x64 of it: the larger the tile of a warp, the fewer bytes of
// shared memory it reads per product. At 240 registers and 48 KB two blocks fit on a multiprocessor (also on sm_86 and
// sm_89, which have 100 KB), so that one multiplies while the other one is in its epilogue. Steps of 32 along k arrive
// through three buffers, two of them ahead of the products.
//
// An output is the sum over k in steps of 16 from 0, whatever m, n and the grid are: its bits depend on its row of x,
// its row of w and its bias alone.
#include "launch.h"
#include "mma.cuh"

namespace gemm_mma {

constexpr int kStep = 32;                  // of k in a buffer
constexpr int kRowBytes = kStep * 2;       // of a row of x or w in a buffer
constexpr int kBuffers = 3;
constexpr int kXBytes = kGemmTileRows * kRowBytes;
constexpr int kBufferBytes = kXBytes + kGemmTileColumns * kRowBytes;
constexpr int kWarpTile = 64;
// Rows of tiles that are worked on together, so that their x and the w they share stay in the L2 cache.
constexpr int kGroup = 16;
static_assert(kBuffers * kBufferBytes == kGemmSharedBytes, "launch.h names other sizes");

// Where the 16 bytes `chunk` of a row of 64 bytes lie, so that 8 rows of one column of chunks use all banks.
DEVICE int chunk_offset(int row, int chunk) { return row * kRowBytes + ((chunk ^ (row >> 1 & 3)) << 4); }

// What a warp multiplies in a step of 16 along k: four times 16 rows of x, and of w.
struct Fragments {
  uint32_t x[4][4], w[4][4];
};

DEVICE void load(Fragments& to, uint32_t x, uint32_t w) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    load_matrices(to.x[i], x + i * 16 * kRowBytes);
    load_matrices(to.w[i], w + i * 16 * kRowBytes);
  }
}

template <class T> DEVICE void multiply(float (&accumulators)[4][8][4], const Fragments& part) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int step = 0; step < 8; step++) {
      // Alternating directions, so that two products in succession share a fragment of w.
      int j = i & 1 ? 7 - step : step;
      const uint32_t* w = part.w[j / 2] + j % 2 * 2;
      mma_16x8x16<T>(accumulators[i][j], part.x[i], w[0], w[1], accumulators[i][j]);
    }
  }
}

// The tile of this block: down the rows of a group, then on to the next column.
DEVICE uint2 tile_of_block() {
  uint32_t block = blockIdx.y * gridDim.x + blockIdx.x, blocks_of_group = kGroup * gridDim.y;
  uint32_t first = block / blocks_of_group * kGroup, within = block % blocks_of_group;
  uint32_t rows = min(gridDim.x - first, (uint32_t)kGroup);
  return make_uint2(first + within % rows, within / rows);
}

// Where a number of a warp's 32x64 part of the output lies, in floats. Free of bank conflicts for the writes of two
// columns a lane in the accumulator's layout, for reads of 8 columns a lane by 16 bytes, and of a column a lane.
DEVICE int staged(int row, int column) {
  return row * kWarpTile + ((column >> 2 ^ (row & 3) << 1 ^ column >> 5) << 2) + (column & 3);
}

// Writes a warp's part of 32 rows and 64 columns, which starts at `row` and `column` of the output.
template <class T, bool GELU>
DEVICE void store(const float* part, const float (&bias)[8], T* out, int row, int column, int m, int n) {
  int lane = threadIdx.x & 31, mine = lane % 8 * 8;
  if (column + mine >= n) return;
#pragma unroll 1
  for (int r = lane / 8; r < 32; r += 4) {
    if (row + r >= m) return;
    float4 a = *(const float4*)(part + staged(r, mine)), b = *(const float4*)(part + staged(r, mine + 4));
    float y[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
      y[i] += bias[i];
      if (GELU) y[i] = gelu(y[i]);
    }
    *(uint4*)(out + (size_t)(row + r) * n + column + mine) =
        make_uint4(pack2<T>(y[0], y[1]), pack2<T>(y[2], y[3]), pack2<T>(y[4], y[5]), pack2<T>(y[6], y[7]));
  }
}

// The same for f32 and any n: a lane has two columns, 32 apart, and a warp writes 128 neighbouring bytes at once.
template <>
DEVICE void store<f32, false>(const float* part, const float (&bias)[8], f32* out, int row, int column, int m, int n) {
  int lane = threadIdx.x & 31;
#pragma unroll 4
  for (int r = 0; r < 32; r++) {
    if (row + r >= m) return;
    f32* to = out + (size_t)(row + r) * n + column + lane;
    if (column + lane < n) to[0] = part[staged(r, lane)] + bias[0];
    if (column + lane + 32 < n) to[32] = part[staged(r, lane + 32)] + bias[1];
  }
}

template <class T, class Out, bool GELU>
DEVICE void gemm(const T* x, const T* w, const float* bias, Out* out, int m, int n, int k) {
  DYNAMIC_SHARED(shared);
  int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  uint2 tile = tile_of_block();
  int first_row = tile.x * kGemmTileRows, first_column = tile.y * kGemmTileColumns;
  int steps = (k + kStep - 1) / kStep;
  uint32_t buffers = shared_address(shared);

  // A thread copies 16 bytes of every 32nd row of x and of w.
  int copied_row = thread / 4, copied_column = thread % 4 * 8, columns_left = n - first_column - copied_row;
  const T* x_from = x + (size_t)(first_row + copied_row) * k + copied_column;
  const T* w_from = w + (size_t)(first_column + copied_row) * k + copied_column;
  uint32_t copy_to = buffers + chunk_offset(copied_row, thread % 4);
  auto fetch = [&](int step, uint32_t into) {
    bool inside = step * kStep + copied_column < k;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      size_t from = (size_t)(i * 32) * k + step * kStep;
      uint32_t to = copy_to + into * kBufferBytes + i * 32 * kRowBytes;
      copy16_async(to, x_from + from, inside);
      copy16_async(to + kXBytes, w_from + from, inside && i * 32 < columns_left);
    }
  };

  // The rows whose addresses this lane gives to ldmatrix; the second half of a buffer's columns is at the address ^ 32.
  int warp_row = warp / 2 * kWarpTile, warp_column = warp % 2 * kWarpTile;
  uint32_t x_at = buffers + chunk_offset(warp_row + (lane & 15), lane >> 4);
  uint32_t w_at = buffers + kXBytes + chunk_offset(warp_column + (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);

  float accumulators[4][8][4];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int c = 0; c < 4; c++) accumulators[i][j][c] = 0.f;

  fetch(0, 0);
  commit_copies();
  if (steps > 1) fetch(1, 1);
  commit_copies();
  wait_copies<1>();
  __syncthreads();
  Fragments first, second;
  load(first, x_at, w_at);
  uint32_t buffer = 0, free_buffer = 2;
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    load(second, (x_at ^ 32) + buffer * kBufferBytes, (w_at ^ 32) + buffer * kBufferBytes);
    // All warps have read the buffer of the step before: they did so ahead of the last barrier.
    if (step + 2 < steps) fetch(step + 2, free_buffer);
    commit_copies();
    multiply<T>(accumulators, first);
    wait_copies<1>();
    __syncthreads();
    free_buffer = buffer;
    buffer = buffer == kBuffers - 1 ? 0 : buffer + 1;
    // Of no use after the last step, but a branch would keep the loads from running ahead of the products.
    load(first, x_at + buffer * kBufferBytes, w_at + buffer * kBufferBytes);
    multiply<T>(accumulators, second);
  }
  wait_copies<0>();
  __syncthreads();

  // 32 rows at a time through shared memory that is the warp's own, in f32.
  constexpr bool rounded = sizeof(Out) == 2;
  float bias_of_lane[8];
  int column = first_column + warp_column;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int mine = column + (rounded ? lane % 8 * 8 + i : lane + i * 32);
    bias_of_lane[i] = bias && mine < n && (rounded || i < 2) ? __ldg(bias + mine) : 0.f;
  }
  float* part = (float*)shared + warp * 32 * kWarpTile;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (half) __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int j = 0; j < 8; j++) {
        const float(&c)[4] = accumulators[half * 2 + i][j];
        int row = i * 16 + lane / 4, at = j * 8 + lane % 4 * 2;
        *(float2*)(part + staged(row, at)) = make_float2(c[0], c[1]);
        *(float2*)(part + staged(row + 8, at)) = make_float2(c[2], c[3]);
      }
    }
    __syncwarp();
    store<Out, GELU>(part, bias_of_lane, out, first_row + warp_row + half * 32, column, m, n);
  }
}

}  // namespace gemm_mma

#define GEMM_KERNEL(name, T, Out, GELU)                                                                  \
  KERNEL __launch_bounds__(kGemmThreads, 2)                                                              \
      name(const T* x, const T* w, const float* bias, Out* out, int m, int n, int k) {                   \
    gemm_mma::gemm<T, Out, GELU>(x, w, bias, out, m, n, k);                                              \
  }                                                                                                      \
  HOST_KERNEL(name)

GEMM_KERNEL(gemm_bf16, bf16, bf16, false)
GEMM_KERNEL(gemm_f16, f16, f16, false)
GEMM_KERNEL(gemm_gelu_bf16, bf16, bf16, true)
GEMM_KERNEL(gemm_gelu_f16, f16, f16, true)
GEMM_KERNEL(gemm_out_f32_bf16, bf16, f32, false)
GEMM_KERNEL(gemm_out_f32_f16, f16, f32, false)
#undef GEMM_KERNEL
