// out = x wT + bias in f32 without tensor cores: x [m, k], w [n, k], both with k contiguous; k is a multiple of 4.
//
// A block makes a tile of 64 x 64, a thread 4 x 4 of it. Tiles of x and w lie in shared memory by k, in two buffers:
// while one is multiplied, the next is on its way. A number is summed over k in order, whatever m, n and the tile.
#include "common.cuh"
#include "launch_f32.h"

namespace gemm_f32_tile {

constexpr int kBuffer = kGemmF32KStep * kGemmF32Pitch;

// Four numbers of row `row` from column k on; zero outside of the matrix.
DEVICE float4 load_or_zero(const float* matrix, int row, int rows, int column, int k) {
  return row < rows && column < k ? load4<f32>(matrix + (size_t)row * k + column) : make_float4(0.f, 0.f, 0.f, 0.f);
}

DEVICE void store_transposed(float* buffer, int row, int column, float4 x) {
  buffer[column * kGemmF32Pitch + row] = x.x;
  buffer[(column + 1) * kGemmF32Pitch + row] = x.y;
  buffer[(column + 2) * kGemmF32Pitch + row] = x.z;
  buffer[(column + 3) * kGemmF32Pitch + row] = x.w;
}

template <bool Gelu>
DEVICE void multiply(const float* x, const float* w, const float* bias, float* out, int m, int n, int k) {
  DYNAMIC_SHARED(shared);
  float* x_tiles = (float*)shared;
  float* w_tiles = x_tiles + 2 * kBuffer;
  int thread = threadIdx.x;
  int first_row = blockIdx.y * kGemmF32Tile, first_column = blockIdx.x * kGemmF32Tile;
  // What this thread brings: four numbers of one row of each tile.
  int load_row = thread / 4, load_k = thread % 4 * 4;
  // What it computes.
  int row = thread / 16 * 4, column = thread % 16 * 4;

  float sums[4][4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) sums[i][j] = 0.f;
  }

  float4 next_x = load_or_zero(x, first_row + load_row, m, load_k, k);
  float4 next_w = load_or_zero(w, first_column + load_row, n, load_k, k);
  int buffer = 0;
  for (int first_k = 0; first_k < k; first_k += kGemmF32KStep) {
    float* x_tile = x_tiles + buffer * kBuffer;
    float* w_tile = w_tiles + buffer * kBuffer;
    store_transposed(x_tile, load_row, load_k, next_x);
    store_transposed(w_tile, load_row, load_k, next_w);
    // One barrier a step: whoever writes this buffer again has passed the next step's barrier, so all have read it.
    __syncthreads();
    next_x = load_or_zero(x, first_row + load_row, m, first_k + kGemmF32KStep + load_k, k);
    next_w = load_or_zero(w, first_column + load_row, n, first_k + kGemmF32KStep + load_k, k);
#pragma unroll
    for (int step = 0; step < kGemmF32KStep; step++) {
      float4 a = load4<f32>(x_tile + step * kGemmF32Pitch + row);
      float4 b = load4<f32>(w_tile + step * kGemmF32Pitch + column);
      float rows[4] = {a.x, a.y, a.z, a.w}, columns[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += rows[i] * columns[j];
      }
    }
    buffer ^= 1;
  }

  row += first_row;
  column += first_column;
  float biases[4];
#pragma unroll
  for (int j = 0; j < 4; j++) biases[j] = bias && column + j < n ? bias[column + j] : 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (row + i >= m) continue;
    float* to = out + (size_t)(row + i) * n + column;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      sums[i][j] += biases[j];
      if (Gelu) sums[i][j] = gelu(sums[i][j]);
    }
    if (n % 4 == 0 && column < n) {
      store4<f32>(to, make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]));
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (column + j < n) to[j] = sums[i][j];
    }
  }
}

}  // namespace gemm_f32_tile

KERNEL __launch_bounds__(kGemmF32Threads)
    gemm_f32(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias,
             float* __restrict__ out, int m, int n, int k) {
  gemm_f32_tile::multiply<false>(x, w, bias, out, m, n, k);
}
HOST_KERNEL(gemm_f32)

KERNEL __launch_bounds__(kGemmF32Threads)
    gemm_gelu_f32(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias,
                  float* __restrict__ out, int m, int n, int k) {
  gemm_f32_tile::multiply<true>(x, w, bias, out, m, n, k);
}
HOST_KERNEL(gemm_gelu_f32)
