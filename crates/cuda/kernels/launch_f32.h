// Launch constants of gemm_f32 and attention_f32.
#pragma once

// gemm_f32, gemm_gelu_f32: grid (ceil(n / kGemmF32Tile), ceil(m / kGemmF32Tile)).
constexpr int kGemmF32Threads = 256;
constexpr int kGemmF32Tile = 64;
constexpr int kGemmF32KStep = 16;
// Rows of a tile in shared memory, by k; 4 more columns against bank conflicts.
constexpr int kGemmF32Pitch = kGemmF32Tile + 4;
constexpr int kGemmF32SharedBytes = 2 * 2 * kGemmF32KStep * kGemmF32Pitch * 4;

// attention_f32: grid (tiles, heads).
constexpr int kAttentionF32Threads = 128;
constexpr int kAttentionF32Rows = 64;
constexpr int kAttentionF32Keys = 32;
constexpr int kAttentionF32MaxHeadSize = 128;
constexpr int kAttentionF32ScorePitch = kAttentionF32Keys + 4;

// Numbers from one row of queries, keys or values to the next in shared memory.
__host__ __device__ constexpr int attention_f32_pitch(int head_size) { return (head_size + 31) / 32 * 32 + 4; }
__host__ __device__ constexpr int attention_f32_shared_bytes(int head_size) {
  return ((kAttentionF32Rows + 2 * kAttentionF32Keys) * attention_f32_pitch(head_size) +
          kAttentionF32Rows * kAttentionF32ScorePitch) *
         4;
}
