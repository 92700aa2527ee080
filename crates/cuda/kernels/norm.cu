// LayerNorm over rows, and what comes just before it: the sum of the embeddings, the residual sum. A warp computes a
// row in a fixed order, so a row's bits depend on nothing but the row.
//
// add_norm, which runs twice a layer, has entry points by W, the float4 chunks that a lane holds: rows of up to 128 W
// numbers stay in registers between the passes (mean, squares about the mean, output). Rows that are too long for that
// (W = 64), and those of embed and norm_rows, which run once, are read again for each pass; they come from a cache.
#include "common.cuh"

namespace layer_norm {

// Where the norm stands; the residual stream holds the sum itself or its norm.
enum Placement { kPre = 0, kPost = 1, kNone = 2 };

// For rows of any length, read again for each pass.
constexpr int kAnyLength = 0;

struct Parameters {
  const float* weight;
  const float* bias;
  float eps;
  int placement;
};

DEVICE float4 add(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// A lane's chunks are every 32nd float4 of the row, from `first` on; those behind the row's end are zero.
template <class T, int G>
DEVICE void load_chunks(float4 (&row)[G], const T* from, int first, int chunks, int lane) {
#pragma unroll
  for (int i = 0; i < G; i++) {
    int c = (first + i) * 32 + lane;
    row[i] = c < chunks ? load4<T>(from + 4 * c) : make_float4(0.f, 0.f, 0.f, 0.f);
  }
}

template <class T, int G>
DEVICE void add_chunks(float4 (&row)[G], const T* from, int first, int chunks, int lane) {
#pragma unroll
  for (int i = 0; i < G; i++) {
    int c = (first + i) * 32 + lane;
    if (c < chunks) row[i] = add(row[i], load4<T>(from + 4 * c));
  }
}

template <class T, int G>
DEVICE void store_chunks(T* out, const float4 (&row)[G], int first, int chunks, int lane) {
#pragma unroll
  for (int i = 0; i < G; i++) {
    int c = (first + i) * 32 + lane;
    if (c < chunks) store4<T>(out + 4 * c, row[i]);
  }
}

// The sources of rows: one loop for each operand keeps all of an operand's loads in flight.

// states + y + bias; y and bias may be null.
template <class T>
struct ResidualSum {
  const float* states;
  const T* y;
  const float* bias;
  template <int G>
  DEVICE void load(float4 (&row)[G], int first, int chunks, int lane) const {
    load_chunks<f32>(row, states, first, chunks, lane);
    if (y) add_chunks<T>(row, y, first, chunks, lane);
    if (bias) add_chunks<f32>(row, bias, first, chunks, lane);
  }
};

template <class T>
struct EmbeddingSum {
  const T* word;
  const T* position;
  const T* type;
  template <int G>
  DEVICE void load(float4 (&row)[G], int first, int chunks, int lane) const {
    load_chunks<T>(row, word, first, chunks, lane);
    add_chunks<T>(row, position, first, chunks, lane);
    add_chunks<T>(row, type, first, chunks, lane);
  }
};

template <class T>
struct Row {
  const T* y;
  template <int G>
  DEVICE void load(float4 (&row)[G], int first, int chunks, int lane) const {
    load_chunks<T>(row, y, first, chunks, lane);
  }
};

// One row by one warp. `states` and `x` are the rows to write, or null.
template <class T, int W, class Source>
DEVICE void write_row(const Source& source, Parameters norm, float* states, T* x, int hidden) {
  constexpr bool in_registers = W != kAnyLength;
  constexpr int G = in_registers ? W : 4;
  int lane = threadIdx.x & 31, chunks = hidden / 4;
  int end = in_registers ? G : (chunks + 31) / 32;
  float4 row[G];
  if (in_registers) source.load(row, 0, chunks, lane);

  float mean = 0.f, scale = 1.f;
  if (norm.placement != kNone) {
    float sum = 0.f;
    for (int first = 0; first < end; first += G) {
      if (!in_registers) source.load(row, first, chunks, lane);
#pragma unroll
      for (int i = 0; i < G; i++) sum += (row[i].x + row[i].y) + (row[i].z + row[i].w);
    }
    mean = warp_sum(sum) / (float)hidden;
    float squares = 0.f;
    for (int first = 0; first < end; first += G) {
      if (!in_registers) source.load(row, first, chunks, lane);
#pragma unroll
      for (int i = 0; i < G; i++) {
        float a = row[i].x - mean, b = row[i].y - mean, c = row[i].z - mean, d = row[i].w - mean;
        float sum_of_chunk = (a * a + b * b) + (c * c + d * d);
        squares += (first + i) * 32 + lane < chunks ? sum_of_chunk : 0.f;
      }
    }
    scale = rsqrtf(warp_sum(squares) / (float)hidden + norm.eps);
  }

  for (int first = 0; first < end; first += G) {
    if (!in_registers) source.load(row, first, chunks, lane);
    if (states && norm.placement != kPost) store_chunks<f32, G>(states, row, first, chunks, lane);
    if (norm.placement != kNone) {
#pragma unroll
      for (int i = 0; i < G; i++) {
        int c = (first + i) * 32 + lane;
        if (c < chunks) {
          float4 weight = load4<f32>(norm.weight + 4 * c), bias = load4<f32>(norm.bias + 4 * c);
          row[i].x = (row[i].x - mean) * scale * weight.x + bias.x;
          row[i].y = (row[i].y - mean) * scale * weight.y + bias.y;
          row[i].z = (row[i].z - mean) * scale * weight.z + bias.z;
          row[i].w = (row[i].w - mean) * scale * weight.w + bias.w;
        }
      }
    }
    if (states && norm.placement == kPost) store_chunks<f32, G>(states, row, first, chunks, lane);
    if (x) store_chunks<T, G>(x, row, first, chunks, lane);
  }
}

template <class T>
DEVICE void embed(const T* words, const T* position_table, const T* type_table, const uint32_t* ids,
                  const uint32_t* positions, const uint32_t* types, Parameters norm, float* states, T* x, int tokens,
                  int hidden) {
  int token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (token >= tokens) return;
  EmbeddingSum<T> source{words + (size_t)ids[token] * hidden, position_table + (size_t)positions[token] * hidden,
                         type_table + (size_t)(types ? types[token] : 0) * hidden};
  size_t at = (size_t)token * hidden;
  write_row<T, kAnyLength>(source, norm, states + at, x ? x + at : x, hidden);
}

template <class T, int W>
DEVICE void add_norm(const T* y, const float* bias, Parameters norm, float* states, T* x, int tokens, int hidden) {
  int token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (token >= tokens) return;
  size_t at = (size_t)token * hidden;
  ResidualSum<T> source{states + at, y ? y + at : y, bias};
  // Without a summand the states stay what they are.
  bool states_change = y || bias || norm.placement == kPost;
  write_row<T, W>(source, norm, states_change ? states + at : nullptr, x ? x + at : x, hidden);
}

template <class T>
DEVICE void norm_rows(const T* y, Parameters norm, T* x, int rows, int hidden) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  size_t at = (size_t)row * hidden;
  write_row<T, kAnyLength>(Row<T>{y + at}, norm, nullptr, x + at, hidden);
}

}  // namespace layer_norm

#define ADD_NORM_KERNEL(T, W, CHUNKS)                                                                              \
  KERNEL __launch_bounds__(128)                                                                                    \
      add_norm_##T##_##W(const T* __restrict__ y, const float* __restrict__ bias,                                  \
                         const float* __restrict__ norm_weight, const float* __restrict__ norm_bias, float eps,    \
                         int placement, float* states, T* __restrict__ x, int tokens, int hidden) {                \
    layer_norm::add_norm<T, CHUNKS>(y, bias, {norm_weight, norm_bias, eps, placement}, states, x, tokens, hidden); \
  }                                                                                                                \
  HOST_KERNEL(add_norm_##T##_##W)

#define NORM_KERNELS(T)                                                                                             \
  ADD_NORM_KERNEL(T, 4, 4)                                                                                          \
  ADD_NORM_KERNEL(T, 8, 8)                                                                                          \
  ADD_NORM_KERNEL(T, 12, 12)                                                                                        \
  ADD_NORM_KERNEL(T, 20, 20)                                                                                        \
  ADD_NORM_KERNEL(T, 32, 32)                                                                                        \
  ADD_NORM_KERNEL(T, 64, layer_norm::kAnyLength)                                                                    \
  KERNEL __launch_bounds__(128) embed_##T(                                                                          \
      const T* __restrict__ words, const T* __restrict__ position_table, const T* __restrict__ type_table,          \
      const uint32_t* __restrict__ ids, const uint32_t* __restrict__ positions, const uint32_t* __restrict__ types, \
      const float* __restrict__ norm_weight, const float* __restrict__ norm_bias, float eps, int placement,         \
      float* __restrict__ states, T* __restrict__ x, int tokens, int hidden) {                                      \
    layer_norm::embed<T>(words, position_table, type_table, ids, positions, types,                                  \
                         {norm_weight, norm_bias, eps, placement}, states, x, tokens, hidden);                      \
  }                                                                                                                 \
  HOST_KERNEL(embed_##T)                                                                                            \
  KERNEL __launch_bounds__(128)                                                                                     \
      norm_rows_##T(const T* __restrict__ y, const float* __restrict__ norm_weight,                                 \
                    const float* __restrict__ norm_bias, float eps, T* __restrict__ x, int rows, int hidden) {      \
    layer_norm::norm_rows<T>(y, {norm_weight, norm_bias, eps, layer_norm::kPre}, x, rows, hidden);                  \
  }                                                                                                                 \
  HOST_KERNEL(norm_rows_##T)

NORM_KERNELS(bf16)
NORM_KERNELS(f16)
NORM_KERNELS(f32)
