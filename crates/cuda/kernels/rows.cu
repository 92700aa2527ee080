// Kernels over rows of the residual stream: pooling, selection of rows, thin linear maps; and weights by formula.
// Every number is computed in a fixed order that does not depend on the launch.
#include "common.cuh"

namespace rows {

enum Pooling { kCls = 0, kMean = 1, kMax = 2, kMeanSqrtLen = 3, kWeightedMean = 4, kLastToken = 5 };
enum Activation { kNoActivation = 0, kGelu = 1, kTanh = 2 };

DEVICE float4 max4(float4 a, float4 b) {
  return make_float4(fmaxf(a.x, b.x), fmaxf(a.y, b.y), fmaxf(a.z, b.z), fmaxf(a.w, b.w));
}
// sum + weight * x
DEVICE float4 add_scaled(float4 sum, float weight, float4 x) {
  return make_float4(sum.x + weight * x.x, sum.y + weight * x.y, sum.z + weight * x.z, sum.w + weight * x.w);
}

// Four neighbouring columns of a sequence's vector. `column` points at them in the sequence's first row.
DEVICE float4 pool_columns(const float* column, int length, int hidden, int mode) {
  if (length == 0) return make_float4(0.f, 0.f, 0.f, 0.f);
  if (mode == kCls) return load4<f32>(column);
  if (mode == kLastToken) return load4<f32>(column + (size_t)(length - 1) * hidden);
  if (mode == kMax) {
    float4 most = load4<f32>(column);
#pragma unroll 8
    for (int t = 1; t < length; t++) most = max4(most, load4<f32>(column + (size_t)t * hidden));
    return most;
  }
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
  float divisor = (float)length;
  if (mode == kWeightedMean) {
    divisor = (float)((uint64_t)length * (length + 1) / 2);
#pragma unroll 8
    for (int t = 0; t < length; t++) sum = add_scaled(sum, (float)(t + 1), load4<f32>(column + (size_t)t * hidden));
  } else {
    if (mode == kMeanSqrtLen) divisor = sqrtf(divisor);
#pragma unroll 8
    for (int t = 0; t < length; t++) sum = add_scaled(sum, 1.f, load4<f32>(column + (size_t)t * hidden));
  }
  return make_float4(sum.x / divisor, sum.y / divisor, sum.z / divisor, sum.w / divisor);
}

template <class T>
DEVICE void gather(const float* states, const uint32_t* rows, T* x, int count, int hidden) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
  if (row >= count) return;
  const float* from = states + (size_t)rows[row] * hidden;
  T* to = x + (size_t)row * hidden;
#pragma unroll 4
  for (int c = lane; c < hidden / 4; c += 32) store4<T>(to + 4 * c, load4<f32>(from + 4 * c));
}

// Outputs that a warp computes at once, so that a piece of x is read once for all of them.
constexpr int kOutputs = 8;

template <class T>
DEVICE void linear(const float* x, const T* w, const float* bias, float* out, int m, int n, int k, int activation) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
  if (row >= m) return;
  const float* from = x + (size_t)row * k;
  for (int first = blockIdx.y * kOutputs; first < n; first += gridDim.y * kOutputs) {
    float sums[kOutputs];
#pragma unroll
    for (int i = 0; i < kOutputs; i++) sums[i] = 0.f;
    for (int c = lane; c < k / 4; c += 32) {
      float4 a = load4<f32>(from + 4 * c);
#pragma unroll
      for (int i = 0; i < kOutputs; i++) {
        // Outputs behind the last one repeat it and are not stored.
        float4 b = load4<T>(w + (size_t)min(first + i, n - 1) * k + 4 * c);
        sums[i] += (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w);
      }
    }
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < kOutputs; i++) {
      float total = warp_sum(sums[i]);
      if (lane == i) sum = total;
    }
    int column = first + lane;
    if (lane < kOutputs && column < n) {
      if (bias) sum += bias[column];
      if (activation == kGelu) sum = gelu(sum);
      if (activation == kTanh) sum = tanhf(sum);
      out[(size_t)row * n + column] = sum;
    }
  }
}

DEVICE uint64_t splitmix64(uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// Rounded after each step, as the encoder's synthetic checkpoints are.
DEVICE float synthetic(uint64_t value, float offset, float scale) {
  float uniform = (float)(uint32_t)(splitmix64(value) >> 40) / 8388608.f - 1.f;
  return __fadd_rn(offset, __fmul_rn(scale, uniform));
}

template <class T>
DEVICE void fill(T* out, uint64_t seed, uint64_t first, uint64_t count, float offset, float scale) {
  uint64_t stride = (uint64_t)gridDim.x * blockDim.x * 4;
  for (uint64_t i = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < count; i += stride) {
    float x[4];
#pragma unroll
    for (int j = 0; j < 4; j++) x[j] = synthetic(seed + first + i + j, offset, scale);
    if (i + 4 <= count)
      store4<T>(out + i, make_float4(x[0], x[1], x[2], x[3]));
    else
      for (int j = 0; i + j < count; j++) out[i + j] = from_f32<T>(x[j]);
  }
}

}  // namespace rows

// A block a sequence. Its vector is read again for the length, by every warp in the same order, so that the bits do
// not depend on the number of threads.
KERNEL __launch_bounds__(512) pool(const float* __restrict__ states, const uint32_t* __restrict__ cu_seqlens,
                                   float* out, int hidden, int dim, int mode, int normalize) {
  int sequence = blockIdx.x;
  uint32_t first = cu_seqlens[sequence];
  int length = (int)(cu_seqlens[sequence + 1] - first);
  const float* from = states + (size_t)first * hidden;
  float* to = out + (size_t)sequence * dim;
  for (int column = threadIdx.x * 4; column < dim; column += blockDim.x * 4) {
    float4 x = rows::pool_columns(from + column, length, hidden, mode);
    // Vectors of a width that is no multiple of 4 are not aligned.
    to[column] = x.x;
    if (column + 1 < dim) to[column + 1] = x.y;
    if (column + 2 < dim) to[column + 2] = x.z;
    if (column + 3 < dim) to[column + 3] = x.w;
  }
  if (!normalize) return;
  __syncthreads();
  float squares = 0.f;
#pragma unroll 8
  for (int column = threadIdx.x & 31; column < dim; column += 32) squares += to[column] * to[column];
  float length_of_vector = fmaxf(sqrtf(warp_sum(squares)), 1e-12f);
  __syncthreads();
  for (int column = threadIdx.x; column < dim; column += blockDim.x) to[column] /= length_of_vector;
}
HOST_KERNEL(pool)

// In f32, whatever the number type of the weights.
KERNEL __launch_bounds__(128) gather_rows_out_f32(const float* __restrict__ states, const uint32_t* __restrict__ rows,
                                                  float* __restrict__ out, int count, int hidden) {
  rows::gather<f32>(states, rows, out, count, hidden);
}
HOST_KERNEL(gather_rows_out_f32)

#define ROW_KERNELS(T)                                                                                               \
  KERNEL __launch_bounds__(128) gather_rows_##T(const float* __restrict__ states, const uint32_t* __restrict__ rows, \
                                                T* __restrict__ x, int count, int hidden) {                          \
    rows::gather<T>(states, rows, x, count, hidden);                                                                 \
  }                                                                                                                  \
  HOST_KERNEL(gather_rows_##T)                                                                                       \
  KERNEL __launch_bounds__(128)                                                                                      \
      linear_##T(const float* __restrict__ x, const T* __restrict__ w, const float* __restrict__ bias,               \
                 float* __restrict__ out, int m, int n, int k, int activation) {                                     \
    rows::linear<T>(x, w, bias, out, m, n, k, activation);                                                           \
  }                                                                                                                  \
  HOST_KERNEL(linear_##T)                                                                                            \
  KERNEL __launch_bounds__(256)                                                                                      \
      fill_##T(T* out, uint64_t seed, uint64_t first, uint64_t count, float offset, float scale) {                   \
    rows::fill<T>(out, seed, first, count, offset, scale);                                                           \
  }                                                                                                                  \
  HOST_KERNEL(fill_##T)

ROW_KERNELS(bf16)
ROW_KERNELS(f16)
ROW_KERNELS(f32)
