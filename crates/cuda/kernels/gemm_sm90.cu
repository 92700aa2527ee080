// out = x w^T + bias, optionally followed by GELU, for compute capability 9.0 (wgmma, TMA). launch_sm90.h has the
// launch parameters and the tensor maps.
//
// A block computes tiles of 128 x 256. One warpgroup loads (the producer); two multiply, 64 rows each (the consumers).
// A cluster of two blocks computes two tiles, one above the other, which share 256 rows of w: each block loads half of
// them and multicasts it to both. So a block reads 32 KiB per K step of 64 from the L2 cache instead of 48 KiB, which
// is close to what the L2 cache delivers when all multiprocessors multiply. Ping-pong consumers with a tile of 64 x 256
// each would hide the epilogue completely but read 1.5 times as much.
//
// The kernel is persistent. The producer runs up to four stages ahead, into the next tile as well. The epilogue (bias,
// GELU, rounding, stores) overlaps with products in two ways:
// - Output goes through shared memory of its own, and TMA stores it while the next tile begins.
// - The second consumer runs kConsumerOffset stages behind the first. It still multiplies when the first one is in its
//   epilogue, and the first one multiplies again when the second one is. A larger offset would hide more of the
//   epilogue but leave fewer stages for prefetching.
//
// K is summed in a fixed order and never split, so a row of the output has the same bits for every m, row position and
// grid. The kernel is right for small m too: consumers whose rows are all beyond m skip the products. Time is then
// bound by the loads of w, which only as many blocks as there are tiles take part in.
//
// Why no wait can hang: all warps of a cluster go through the same sequence of tiles and stages. Loads of a stage wait
// for the 16 consumer warps of the cluster to release its previous contents. A consumer warp releases a stage at the
// latest after the products of the next one, which is already loaded or whose load waits for releases before it only.
#include "hopper.cuh"
#include "launch_sm90.h"

namespace gemm_sm90 {

using namespace hopper;

constexpr int kStages = kGemmSm90Stages, kCluster = kGemmSm90Cluster;
constexpr int kTileRows = kGemmSm90TileRows, kTileColumns = kGemmSm90TileColumns, kTileDepth = kGemmSm90TileDepth;
constexpr int kConsumerRows = kTileRows / 2, kConsumerWarps = 8;

// Tiles are computed in bands of this many tile rows (of a cluster), column by column. The tiles in flight then form a
// block of about 8 x 8, whose operands stay in the L2 cache.
constexpr int kBandRows = 8;
// How many stages the second consumer runs behind the first.
constexpr int kConsumerOffset = 2;

constexpr int kXBytes = kTileRows * kTileDepth * 2, kWBytes = kTileColumns * kTileDepth * 2;
constexpr int kStageBytes = kXBytes + kWBytes;
// Output staging: two boxes per warp.
constexpr int kBoxBytes = kGemmSm90OutRows * kGemmSm90OutColumns * 2;
constexpr int kOutputOffset = kStages * kStageBytes, kBarrierOffset = kOutputOffset + kConsumerWarps * 2 * kBoxBytes;

static_assert(kBarrierOffset + kGemmSm90BarrierBytes == kGemmSm90SharedBytes, "shared memory layout");
static_assert(kGemmSm90SharedBytes <= 227 * 1024, "shared memory of a block");
static_assert(kGemmSm90Threads == 3 * 128 && kCluster == 2, "one producer and two consumer warpgroups");
static_assert(kGemmSm90XRows == kTileRows && kGemmSm90XColumns == kTileDepth, "a box of x is a stage of x");
static_assert(kGemmSm90WRows * kCluster == kTileColumns && kGemmSm90WColumns == kTileDepth,
              "each block loads a part of w");
static_assert(kGemmSm90OutRows == 16 && kGemmSm90OutColumns * 4 == kTileColumns, "a warp stores a quarter at a time");
static_assert(kConsumerOffset < kStages, "the stage that the second consumer waits for is loaded without any release");
// A thread starts with 168 registers, and 3 x 168 = 40 + 2 x 232.
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

// ---- Pipeline ----

struct Stage {
  int index = 0;
  uint32_t parity = 0;  // of the phase in which the stage is used
  DEVICE void advance() {
    if (++index == kStages) {
      index = 0;
      parity ^= 1;
    }
  }
};

struct Pipeline {
  uint32_t shared;
  DEVICE uint32_t x(int stage) const { return shared + stage * kStageBytes; }
  DEVICE uint32_t w(int stage) const { return x(stage) + kXBytes; }
  // Completes a phase when the stage is loaded.
  DEVICE uint32_t full(int stage) const { return shared + kBarrierOffset + 8 * stage; }
  // Completes a phase when all consumer warps of the cluster have read the stage: both blocks load parts of it.
  DEVICE uint32_t empty(int stage) const { return full(stage) + 8 * kStages; }

  DEVICE void initialize() const {
    for (int stage = 0; stage < kStages; stage++) {
      mbarrier_init(full(stage), 1);
      mbarrier_init(empty(stage), kCluster * kConsumerWarps);
    }
    mbarrier_init_fence();
  }
  // By a consumer warp.
  DEVICE void release(int stage, int lane) const {
    if (lane < kCluster) mbarrier_arrive_cluster(empty(stage), lane);
  }
};

// ---- Tiles ----

struct Shape {
  int m, n;
  int steps;  // of kTileDepth along K
  DEVICE int tile_rows() const { return (m + kCluster * kTileRows - 1) / (kCluster * kTileRows); }
  DEVICE int tile_columns() const { return (n + kTileColumns - 1) / kTileColumns; }
  DEVICE int tiles() const { return tile_rows() * tile_columns(); }
};

// First row and column of a cluster's tile.
struct Tile {
  int row, column;
};

DEVICE Tile tile_at(int number, const Shape& shape) {
  int band_tiles = kBandRows * shape.tile_columns(), first_row = number / band_tiles * kBandRows;
  int rows = min(kBandRows, shape.tile_rows() - first_row), within_band = number % band_tiles;
  return {(first_row + within_band % rows) * kCluster * kTileRows, within_band / rows * kTileColumns};
}

// ---- Producer: one thread ----

DEVICE void load_stages(const TensorMap* x, const TensorMap* w, const Shape& shape, const Pipeline& pipeline,
                        int rank) {
  Stage stage;
  for (int number = blockIdx.x / kCluster; number < shape.tiles(); number += gridDim.x / kCluster) {
    Tile tile = tile_at(number, shape);
    for (int step = 0; step < shape.steps; step++) {
      uint32_t full = pipeline.full(stage.index);
      mbarrier_wait(pipeline.empty(stage.index), stage.parity ^ 1);
      mbarrier_arrive_expect_tx(full, kStageBytes);
      tma_load(pipeline.x(stage.index), x, tile.row + rank * kTileRows, step * kTileDepth, full);
      tma_load_multicast(pipeline.w(stage.index) + rank * (kWBytes / kCluster), w, tile.column + rank * kGemmSm90WRows,
                         step * kTileDepth, full, (1 << kCluster) - 1);
      stage.advance();
    }
  }
}

// ---- Consumer: main loop ----

template <class T>
DEVICE void multiply_tile(float (&accumulators)[128], const Shape& shape, const Pipeline& pipeline, Stage& stage,
                          int consumer, int lane) {
  int previous = 0;
  for (int step = 0; step < shape.steps; step++) {
    mbarrier_wait(pipeline.full(stage.index), stage.parity);
    uint64_t a = matrix_descriptor(pipeline.x(stage.index) + consumer * (kConsumerRows * kTileDepth * 2));
    uint64_t b = matrix_descriptor(pipeline.w(stage.index));
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kTileDepth / 16; k++) {
      wgmma<T>(accumulators, a + k * kDescriptorStep, b + k * kDescriptorStep, step > 0 || k > 0);
    }
    wgmma_commit();
    // The products of this stage stay under way; those of the previous one are complete.
    wgmma_wait<1>();
    if (step > 0) pipeline.release(previous, lane);
    previous = stage.index;
    stage.advance();
  }
  wgmma_wait_all(accumulators);
  pipeline.release(previous, lane);
}

// For a consumer without rows in this tile.
DEVICE void skip_tile(const Shape& shape, const Pipeline& pipeline, Stage& stage, int lane) {
  for (int step = 0; step < shape.steps; step++) {
    mbarrier_wait(pipeline.full(stage.index), stage.parity);
    pipeline.release(stage.index, lane);
    stage.advance();
  }
}

// ---- Consumer: epilogue ----

// The bias of a lane's columns among the 64 from `column`: 8 j + 2 (lane % 4) and the next one.
DEVICE void load_bias(float2 (&values)[8], const float* bias, int column, int n, int lane) {
#pragma unroll
  for (int j = 0; j < 8; j++) {
    int at = column + 8 * j + lane % 4 * 2;
    values[j] = bias && at < n ? *(const float2*)(bias + at) : make_float2(0.f, 0.f);
  }
}

template <class T, bool kGelu> DEVICE uint32_t finish(float a, float b, float2 bias) {
  a += bias.x;
  b += bias.y;
  return kGelu ? pack2<T>(gelu(a), gelu(b)) : pack2<T>(a, b);
}

// Stores the 16 x 256 accumulators of a warp, a quarter at a time, through its two boxes in turn. No other warp takes
// part, so a warp synchronizes with itself only.
template <class T, bool kGelu>
DEVICE void store_tile(const float (&accumulators)[128], const float2 (&first_bias)[8], const float* bias,
                       const TensorMap* out, uint32_t boxes, int row, int column, int n, int lane) {
  // stmatrix: the row that this lane addresses. Its chunks are swizzled by the row number modulo 8.
  const uint32_t lane_row = lane % 16 * 128;
  float2 values[8];
#pragma unroll
  for (int j = 0; j < 8; j++) values[j] = first_bias[j];
#pragma unroll
  for (int quarter = 0; quarter < 4; quarter++) {
    const int from = column + quarter * kGemmSm90OutColumns;
    const uint32_t box = boxes + quarter % 2 * kBoxBytes;
    float2 next[8];
    if (quarter < 3) load_bias(next, bias, from + kGemmSm90OutColumns, n, lane);
    // The last store from this box, two quarters ago, has read it.
    if (lane == 0) tma_store_wait_read<1>();
    __syncwarp();
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
      const int j = 2 * pair, at = 4 * (8 * quarter + j);
      uint32_t left_top = finish<T, kGelu>(accumulators[at], accumulators[at + 1], values[j]);
      uint32_t left_bottom = finish<T, kGelu>(accumulators[at + 2], accumulators[at + 3], values[j]);
      uint32_t right_top = finish<T, kGelu>(accumulators[at + 4], accumulators[at + 5], values[j + 1]);
      uint32_t right_bottom = finish<T, kGelu>(accumulators[at + 6], accumulators[at + 7], values[j + 1]);
      uint32_t chunk = (j + lane / 16) ^ (lane % 8);
      stmatrix_x4(box + lane_row + chunk * 16, left_top, left_bottom, right_top, right_bottom);
    }
    fence_proxy_async();
    __syncwarp();
    if (lane == 0) {
      if (from < n) tma_store(out, row, from, box);
      // Without a store the group is empty: the count of groups tells which box is free.
      tma_store_commit();
    }
    if (quarter < 3) {
#pragma unroll
      for (int j = 0; j < 8; j++) values[j] = next[j];
    }
  }
}

template <class T, bool kGelu>
DEVICE void consume_stages(const TensorMap* out, const float* bias, const Shape& shape, const Pipeline& pipeline,
                           int rank, int consumer, int warp, int lane) {
  const uint32_t boxes = pipeline.shared + kOutputOffset + (consumer * 4 + warp) * (2 * kBoxBytes);
  Stage stage;
  int number = blockIdx.x / kCluster;
  // The second consumer begins late. The stage that it waits for is loaded whatever the consumers do.
  if (consumer == 1 && number < shape.tiles()) mbarrier_wait(pipeline.full(min(kConsumerOffset, shape.steps - 1)), 0);
  for (; number < shape.tiles(); number += gridDim.x / kCluster) {
    Tile tile = tile_at(number, shape);
    int row = tile.row + rank * kTileRows + consumer * kConsumerRows;
    if (row >= shape.m) {
      skip_tile(shape, pipeline, stage, lane);
      continue;
    }
    float2 first_bias[8];
    load_bias(first_bias, bias, tile.column, shape.n, lane);
    float accumulators[128];
    multiply_tile<T>(accumulators, shape, pipeline, stage, consumer, lane);
    row += warp * kGemmSm90OutRows;
    if (row < shape.m) {
      store_tile<T, kGelu>(accumulators, first_bias, bias, out, boxes, row, tile.column, shape.n, lane);
    }
  }
  if (lane == 0) tma_store_wait<0>();
}

template <class T, bool kGelu>
DEVICE void gemm(const TensorMap* x, const TensorMap* w, const TensorMap* out, const float* bias, int m, int n, int k) {
  DYNAMIC_SHARED(memory);
  const Pipeline pipeline{shared_address(memory)};
  const Shape shape{m, n, (k + kTileDepth - 1) / kTileDepth};
  const int rank = cluster_rank(), lane = threadIdx.x % 32;
  // The shuffle lets the compiler know that the whole warp has the same number.
  const int warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(x);
    prefetch_tensor_map(w);
    prefetch_tensor_map(out);
    pipeline.initialize();
  }
  __syncwarp();
  cluster_sync();
  if (warp < 4) {
    setmaxnreg_dec<kProducerRegisters>();
    if (warp == 0 && elect_one()) load_stages(x, w, shape, pipeline, rank);
  } else {
    setmaxnreg_inc<kConsumerRegisters>();
    consume_stages<T, kGelu>(out, bias, shape, pipeline, rank, warp / 4 - 1, warp % 4, lane);
  }
  // The other block may still arrive at this block's barriers.
  __syncwarp();
  cluster_sync();
}

}  // namespace gemm_sm90

#define GEMM_SM90(name, T, gelu)                                                            \
  KERNEL CLUSTER(kGemmSm90Cluster) __launch_bounds__(kGemmSm90Threads, 1)                   \
      name(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,        \
           const __grid_constant__ TensorMap out, const float* bias, int m, int n, int k) { \
    gemm_sm90::gemm<T, gelu>(&x, &w, &out, bias, m, n, k);                                  \
  }                                                                                         \
  HOST_CLUSTER_KERNEL(name, kGemmSm90Cluster, host_async::settle)

GEMM_SM90(gemm_sm90_bf16, bf16, false)
GEMM_SM90(gemm_sm90_f16, f16, false)
GEMM_SM90(gemm_gelu_sm90_bf16, bf16, true)
GEMM_SM90(gemm_gelu_sm90_f16, f16, true)

#undef GEMM_SM90
