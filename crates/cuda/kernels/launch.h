// How the tensor-core kernels for sm_80 and later are launched. The Rust side keeps a copy of these numbers.
#pragma once

// gemm_T, gemm_gelu_T, gemm_out_f32_T: a block per tile of the output, grid (ceil(m / rows), ceil(n / columns)).
constexpr int kGemmTileRows = 128;
constexpr int kGemmTileColumns = 128;
constexpr int kGemmThreads = 128;
constexpr int kGemmSharedBytes = 49152;

// attention_T_D: a block per tile of query rows and head, grid (tiles, heads). With D = 128 the shared memory is 64 KB,
// above the 48 KB that a kernel may use unless its attribute for the maximum is set.
constexpr int kAttentionTileRows = 64;
constexpr int kAttentionThreads = 128;
constexpr int kAttentionSharedBytesPerHeadSize = 512;  // times D
