// How the GEMMs of gemm_sm90.cu are launched. They exist for compute capability 9.0 only (sm_90a). The Rust side keeps
// a copy of these numbers.
//
// - x [m, k], w [n, k] and out [m, n] are bf16 or f16, without gaps between rows. m >= 1; n and k are positive
// multiples
//   of 8. Addresses are multiples of 16 bytes. The bias (f32 [n], may be null) is aligned to 8 bytes.
// - Tensor maps: 2 dimensions (columns, rows), 128-byte swizzle, no interleave, zero fill, element strides of 1. The
// map
//   of w has exactly n rows and k columns, since its bounds zero-fill the last tiles. The map of x has k columns and
//   the map of out n. Both have m rows, or any larger number that the buffers have room for. In the latter case the
//   kernel may write rows of out from m up to the next multiple of 16.
// - Grid: gemm_sm90_grid(multiprocessors, m, n). The kernel itself declares clusters of 2 blocks. Any positive even
// grid
//   gives the same bits.
// - Dynamic shared memory: kGemmSm90SharedBytes. It is more than 48 KiB, so the function attribute
//   CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES must be set first.
#pragma once

constexpr int kGemmSm90Threads = 384;
constexpr int kGemmSm90Cluster = 2;

// A block's tile of the output, and the depth of a pipeline stage along k.
constexpr int kGemmSm90TileRows = 128;
constexpr int kGemmSm90TileColumns = 256;
constexpr int kGemmSm90TileDepth = 64;
constexpr int kGemmSm90Stages = 4;

// Boxes of the tensor maps.
constexpr int kGemmSm90XRows = 128;
constexpr int kGemmSm90XColumns = 64;
constexpr int kGemmSm90WRows = 128;  // half of a tile: each block of a cluster loads one half for both
constexpr int kGemmSm90WColumns = 64;
constexpr int kGemmSm90OutRows = 16;
constexpr int kGemmSm90OutColumns = 64;

// Stages of 48 KiB, 32 KiB of output staging, and the barriers.
constexpr int kGemmSm90BarrierBytes = 1024;
constexpr int kGemmSm90SharedBytes =
    kGemmSm90Stages * (kGemmSm90TileRows + kGemmSm90TileColumns) * kGemmSm90TileDepth * 2 + 32 * 1024 +
    kGemmSm90BarrierBytes;

// Blocks of a launch: as many as can run at once, but no more than there are tiles.
constexpr int gemm_sm90_grid(int multiprocessors, int m, int n) {
  long long rows = (m + 2ll * kGemmSm90TileRows - 1) / (2 * kGemmSm90TileRows);
  long long columns = (n + kGemmSm90TileColumns - 1ll) / kGemmSm90TileColumns;
  long long tiles = rows * columns * kGemmSm90Cluster;
  int resident = multiprocessors / kGemmSm90Cluster * kGemmSm90Cluster;
  return tiles < resident ? static_cast<int>(tiles) : resident;
}
