// Attention in f32 without tensor cores, for head sizes of up to 128: softmax(scale q kT) v within each sequence.
//
// A block has 64 query rows of one head. It passes over the sequence's keys from the first, 32 at a time, with a
// running maximum and sum for each row. A row's bits depend on its own sequence and position alone. Eight neighbouring
// lanes share four rows; they hold the same columns of every 8th key's score and a float4 of every 32 output columns.
#include "common.cuh"
#include "launch_f32.h"

namespace attention_f32_tile {

constexpr int kRows = kAttentionF32Rows, kKeys = kAttentionF32Keys, kScorePitch = kAttentionF32ScorePitch;
constexpr int kColumnChunks = kAttentionF32MaxHeadSize / 32;

DEVICE float4 add_scaled(float4 sum, float weight, float4 x) {
  return make_float4(sum.x + weight * x.x, sum.y + weight * x.y, sum.z + weight * x.z, sum.w + weight * x.w);
}

// `count` rows of a head into shared memory; zero behind the head and behind the last row, up to `room` rows.
DEVICE void load_rows(float* to, const float* from, size_t from_pitch, int count, int room, int head_size) {
  int pitch = attention_f32_pitch(head_size), chunks = (pitch - 4) / 4;
  if (head_size % 4 == 0) {
#pragma unroll 4
    for (int i = threadIdx.x; i < room * chunks; i += kAttentionF32Threads) {
      int row = i / chunks, column = i % chunks * 4;
      bool inside = row < count && column < head_size;
      float4 x = inside ? load4<f32>(from + row * from_pitch + column) : make_float4(0.f, 0.f, 0.f, 0.f);
      store4<f32>(to + row * pitch + column, x);
    }
  } else {
    for (int i = threadIdx.x; i < room * chunks * 4; i += kAttentionF32Threads) {
      int row = i / (chunks * 4), column = i % (chunks * 4);
      to[row * pitch + column] = row < count && column < head_size ? from[row * from_pitch + column] : 0.f;
    }
  }
}

}  // namespace attention_f32_tile

KERNEL __launch_bounds__(kAttentionF32Threads)
    attention_f32(const float* __restrict__ qkv, const uint32_t* __restrict__ cu_seqlens,
                  const uint2* __restrict__ tiles, float* __restrict__ out, int heads, float scale, int causal,
                  int head_size) {
  using namespace attention_f32_tile;
  DYNAMIC_SHARED(shared);
  int pitch = attention_f32_pitch(head_size), chunks = (pitch - 4) / 32;
  float* queries = (float*)shared;
  float* keys = queries + kRows * pitch;
  float* values = keys + kKeys * pitch;
  float* scores = values + kKeys * pitch;

  uint2 tile = tiles[blockIdx.x];
  uint32_t sequence_start = cu_seqlens[tile.x];
  int length = (int)(cu_seqlens[tile.x + 1] - sequence_start), first = (int)tile.y;
  int rows = min(kRows, length - first);
  // The last row of the tile sees the most keys.
  int visible = causal ? first + rows : length;
  int width = heads * head_size;
  size_t qkv_pitch = (size_t)3 * width;
  const float* sequence = qkv + sequence_start * qkv_pitch + blockIdx.y * head_size;

  int group = threadIdx.x / 8, member = threadIdx.x % 8;  // rows group + 16 i, keys member + 8 j
  float most[4], sums[4];
  float4 outputs[4][kColumnChunks];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    most[i] = -INFINITY;
    sums[i] = 0.f;
#pragma unroll
    for (int c = 0; c < kColumnChunks; c++) outputs[i][c] = make_float4(0.f, 0.f, 0.f, 0.f);
  }
  scale *= 1.4426950408889634f;  // log2(e): the exponentials are powers of two

  load_rows(queries, sequence + first * qkv_pitch, qkv_pitch, rows, kRows, head_size);
  for (int first_key = 0; first_key < visible; first_key += kKeys) {
    if (first_key) __syncthreads();
    int count = min(kKeys, length - first_key);
    load_rows(keys, sequence + width + first_key * qkv_pitch, qkv_pitch, count, kKeys, head_size);
    load_rows(values, sequence + 2 * width + first_key * qkv_pitch, qkv_pitch, count, kKeys, head_size);
    __syncthreads();

    float s[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) s[i][j] = 0.f;
    }
#pragma unroll 2
    for (int d = 0; d < head_size; d += 4) {
      float4 q[4], k[4];
#pragma unroll
      for (int i = 0; i < 4; i++) q[i] = load4<f32>(queries + (group + 16 * i) * pitch + d);
#pragma unroll
      for (int j = 0; j < 4; j++) k[j] = load4<f32>(keys + (member + 8 * j) * pitch + d);
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          s[i][j] += q[i].x * k[j].x;
          s[i][j] += q[i].y * k[j].y;
          s[i][j] += q[i].z * k[j].z;
          s[i][j] += q[i].w * k[j].w;
        }
      }
    }

#pragma unroll
    for (int i = 0; i < 4; i++) {
      int row = group + 16 * i, last_key = causal ? min(first + row, length - 1) : length - 1;
      float most_now = most[i];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        s[i][j] = first_key + member + 8 * j <= last_key ? s[i][j] * scale : -INFINITY;
        most_now = fmaxf(most_now, s[i][j]);
      }
#pragma unroll
      for (int mask = 4; mask > 0; mask >>= 1) {
        most_now = fmaxf(most_now, __shfl_xor_sync(0xffffffffu, most_now, mask));
      }
      // The first key is visible to every row, so the maximum is a number from the first step on.
      float correction = exp2_approximate(most[i] - most_now);
      most[i] = most_now;
      sums[i] *= correction;
#pragma unroll
      for (int c = 0; c < kColumnChunks; c++) {
        outputs[i][c].x *= correction;
        outputs[i][c].y *= correction;
        outputs[i][c].z *= correction;
        outputs[i][c].w *= correction;
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float p = exp2_approximate(s[i][j] - most_now);
        sums[i] += p;
        scores[row * kScorePitch + member + 8 * j] = p;
      }
    }
    // A row's scores are written and read by one warp.
    __syncwarp();

    for (int key = 0; key < kKeys; key += 4) {
      float4 p[4];
#pragma unroll
      for (int i = 0; i < 4; i++) p[i] = load4<f32>(scores + (group + 16 * i) * kScorePitch + key);
#pragma unroll
      for (int c = 0; c < kColumnChunks; c++) {
        if (c >= chunks) continue;
        const float* at = values + key * pitch + c * 32 + member * 4;
        float4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = load4<f32>(at + j * pitch);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          outputs[i][c] = add_scaled(outputs[i][c], p[i].x, v[0]);
          outputs[i][c] = add_scaled(outputs[i][c], p[i].y, v[1]);
          outputs[i][c] = add_scaled(outputs[i][c], p[i].z, v[2]);
          outputs[i][c] = add_scaled(outputs[i][c], p[i].w, v[3]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int mask = 4; mask > 0; mask >>= 1) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], mask);
    int row = group + 16 * i;
    if (row >= rows) continue;
    float factor = 1.f / sums[i];
    float* to = out + (size_t)(sequence_start + first + row) * width + blockIdx.y * head_size;
#pragma unroll
    for (int c = 0; c < kColumnChunks; c++) {
      int column = c * 32 + member * 4;
      float4 x = outputs[i][c];
      x = make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor);
      if (head_size % 4 == 0) {
        if (column < head_size) store4<f32>(to + column, x);
      } else {
        if (column < head_size) to[column] = x.x;
        if (column + 1 < head_size) to[column + 1] = x.y;
        if (column + 2 < head_size) to[column + 2] = x.z;
        if (column + 3 < head_size) to[column + 3] = x.w;
      }
    }
  }
}
HOST_KERNEL(attention_f32)
