// Tests of the models of compute capability 9.0: documented layouts, and that the models detect mistakes which would
// give wrong numbers or hang on a device.
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

#include "../hopper.cuh"

using check::Buffer;
using check::Random;
using namespace hopper;

namespace {

TensorMap encode(void* base, uint64_t rows, uint64_t columns, uint32_t box_rows, uint32_t box_columns) {
  TensorMap map;
  const char* error = host::encode_tensor_map(&map, base, rows, columns, columns * 2, box_rows, box_columns, 2, 128);
  if (error) host::fail(error);
  return map;
}

// Runs `body` in a process of its own. Returns what it writes to stderr, or an empty string if it succeeds.
std::string failure_of(const std::function<void()>& body) {
  int ends[2];
  if (pipe(ends)) return "no pipe";
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t count; (count = read(ends[0], part, sizeof part)) > 0;) text.append(part, size_t(count));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  return text.empty() ? "no message" : text;
}

// One cluster of `blocks`.
void launch(uint32_t blocks, uint32_t threads, size_t shared_bytes, const std::function<void()>& body,
            host::Order order = host::Order::Forward) {
  host::launch("kernel", {blocks}, {threads}, shared_bytes, blocks, order, 7, body);
}

// ---- A small GEMM with one mistake ----

enum class Mistake {
  None,
  // Detected by wrong numbers, or because the kernel cannot end.
  NoWaitForLoads,
  WrongStride,
  NoSwizzle,
  WrongStepAlongK,
  EarlyRelease,
  NoWaitForWgmma,
  UnclearedAccumulators,
  TooFewBytes,
  // Detected with a message.
  NoWgmmaFence,
  TouchedAccumulator,
  TooManyBytes,
  NoInitFence,
  NoInit,
  TooManyArrivals,
  MissingRelease,
  WrongParity,
  NoStoreFence,
  OverwrittenStore,
  NoWaitForStores,
  UnencodedMap,
  OverwrittenBarrier,
  MissingWarp,
  OperandOutside,
};

constexpr int kTileRows = 64, kTileColumns = 256, kTileDepth = 64, kStages = 2;
constexpr int kStageBytes = (kTileRows + kTileColumns) * kTileDepth * 2, kBoxBytes = 16 * 64 * 2;
constexpr int kBoxes = kStages * kStageBytes, kBarriers = kBoxes + 4 * kBoxBytes;

// One tile of 64 x 256, by a warpgroup and a warp that loads for it.
void tiny_gemm(const TensorMap* x, const TensorMap* w, const TensorMap* out, int stages, Mistake mistake) {
  auto is = [mistake](Mistake other) { return mistake == other; };
  DYNAMIC_SHARED(memory);
  const uint32_t shared = shared_address(memory);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  auto full = [&](int i) { return shared + kBarriers + 16 * uint32_t(i % kStages); };
  auto empty = [&](int i) { return full(i) + 8; };
  auto parity = [](int i) { return uint32_t(i / kStages & 1); };
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      if (!is(Mistake::NoInit)) mbarrier_init(full(i), 1);
      mbarrier_init(empty(i), 4);
    }
    if (!is(Mistake::NoInitFence)) mbarrier_init_fence();
    if (is(Mistake::OverwrittenBarrier)) memset(memory + kBarriers, 0, 8);
  }
  __syncthreads();
  if (warp == 4) {
    if (!elect_one()) return;
    for (int i = 0; i < stages; i++) {
      mbarrier_wait(empty(i), parity(i) ^ (is(Mistake::WrongParity) ? 0 : 1));
      int bytes = kStageBytes;
      if (is(Mistake::TooManyBytes)) bytes += 16;
      if (is(Mistake::TooFewBytes)) bytes -= kTileColumns * kTileDepth;
      mbarrier_arrive_expect_tx(full(i), bytes);
      if (is(Mistake::TooManyArrivals)) mbarrier_arrive(full(i));
      uint32_t to = shared + uint32_t(i % kStages) * kStageBytes;
      tma_load(to, x, 0, i * kTileDepth, full(i));
      tma_load(to + kTileRows * kTileDepth * 2, w, 0, i * kTileDepth, full(i));
      tma_load(to + (kTileRows + kTileColumns / 2) * kTileDepth * 2, w, kTileColumns / 2, i * kTileDepth, full(i));
    }
    return;
  }
  if (warp == 3 && is(Mistake::MissingWarp)) return;
  float accumulators[128];
  std::fill(accumulators, accumulators + 128, NAN);
  for (int i = 0; i < stages; i++) {
    if (!is(Mistake::NoWaitForLoads)) mbarrier_wait(full(i), parity(i));
    uint32_t from = shared + uint32_t(i % kStages) * kStageBytes;
    uint64_t a = matrix_descriptor(from), b = matrix_descriptor(from + kTileRows * kTileDepth * 2);
    if (is(Mistake::WrongStride)) b ^= uint64_t(64 ^ 32) << 32;
    if (is(Mistake::NoSwizzle)) a &= ~(3ull << 62);
    if (is(Mistake::OperandOutside)) b += 0x3000;
    if (!is(Mistake::NoWgmmaFence)) wgmma_fence();
    for (int step = 0; step < 4; step++) {
      uint64_t by = uint64_t(step) * (is(Mistake::WrongStepAlongK) ? 1 : kDescriptorStep);
      wgmma<bf16>(accumulators, a + by, b + by, i + step > 0 || is(Mistake::UnclearedAccumulators));
    }
    wgmma_commit();
    if (is(Mistake::TouchedAccumulator)) accumulators[5] += 1.f;
    if (is(Mistake::EarlyRelease) && lane == 0) mbarrier_arrive(empty(i));
    if (!is(Mistake::NoWaitForWgmma)) wgmma_wait<0>();
    bool releases = !is(Mistake::EarlyRelease) && !(is(Mistake::MissingRelease) && warp == 2);
    if (releases && lane == 0) mbarrier_arrive(empty(i));
  }
  uint32_t box = shared + kBoxes + uint32_t(warp) * kBoxBytes;
  for (int quarter = 0; quarter < 4; quarter++) {
    for (int pair = 0; pair < 4; pair++) {
      float* from = &accumulators[4 * (8 * quarter + 2 * pair)];
      uint32_t chunk = uint32_t((2 * pair + lane / 16) ^ (lane % 8));
      stmatrix_x4(box + uint32_t(lane % 16) * 128 + chunk * 16, pack2<bf16>(from[0], from[1]),
                  pack2<bf16>(from[2], from[3]), pack2<bf16>(from[4], from[5]), pack2<bf16>(from[6], from[7]));
    }
    if (!is(Mistake::NoStoreFence)) fence_proxy_async();
    __syncwarp();
    if (lane == 0) {
      tma_store(out, 16 * warp, 64 * quarter, box);
      tma_store_commit();
      if (!is(Mistake::OverwrittenStore) && !(is(Mistake::NoWaitForStores) && quarter == 3)) tma_store_wait_read<0>();
    }
    __syncwarp();
  }
  if (is(Mistake::NoWaitForWgmma)) wgmma_wait_all(accumulators);
}

struct TinyGemm {
  static constexpr int kDepth = 5 * kTileDepth - 8;
  Buffer<bf16> x, w;

  TinyGemm() {
    Random random(1);
    x = check::random_buffer<bf16>(random, kTileRows * kDepth);
    w = check::random_buffer<bf16>(random, kTileColumns * kDepth, 1.f / std::sqrt(float(kDepth)));
  }

  std::vector<unsigned char> run(Mistake mistake, host::Order order = host::Order::Forward) {
    Buffer<bf16> out(kTileRows * kTileColumns);
    TensorMap x_map = encode(x.data(), kTileRows, kDepth, kTileRows, kTileDepth);
    TensorMap w_map = encode(w.data(), kTileColumns, kDepth, 128, kTileDepth);
    TensorMap out_map = encode(out.data(), kTileRows, kTileColumns, 16, 64);
    if (mistake == Mistake::UnencodedMap) x_map = TensorMap{};
    const int stages = (kDepth + kTileDepth - 1) / kTileDepth;
    launch(1, 160, kBarriers + 64, [&] { tiny_gemm(&x_map, &w_map, &out_map, stages, mistake); }, order);
    return out.bytes();
  }

  std::vector<double> expected() const {
    std::vector<double> all;
    for (size_t row = 0; row < kTileRows; row++) {
      for (size_t column = 0; column < kTileColumns; column++) {
        double sum = 0;
        for (size_t i = 0; i < kDepth; i++) sum += double(x.at(row * kDepth + i)) * w.at(column * kDepth + i);
        all.push_back(sum);
      }
    }
    return all;
  }
};

}  // namespace

TEST(correct_kernel_gives_the_same_bits_with_every_timing) {
  TinyGemm gemm;
  std::vector<unsigned char> right = gemm.run(Mistake::None);
  Buffer<bf16> out(kTileRows * kTileColumns);
  out.set_bytes(right);
  EXPECT_CLOSE(out, gemm.expected(), 4e-3, "the small GEMM");
  for (int i = 0; i < 8; i++) {
    host_async::timing = {bool(i & 1), bool(i & 2), bool(i & 4)};
    for (host::Order order : {host::Order::Forward, host::Order::Reverse, host::Order::Shuffled}) {
      EXPECT(gemm.run(Mistake::None, order) == right, "timing %d, order %d", i, int(order));
    }
  }
  host_async::timing = {};
}

TEST(mistakes_give_wrong_numbers) {
  TinyGemm gemm;
  std::vector<unsigned char> right = gemm.run(Mistake::None);
  for (Mistake mistake :
       {Mistake::NoWaitForLoads, Mistake::WrongStride, Mistake::NoSwizzle, Mistake::WrongStepAlongK,
        Mistake::EarlyRelease, Mistake::NoWaitForWgmma, Mistake::UnclearedAccumulators, Mistake::TooFewBytes}) {
    std::string failure = failure_of([&] {
      if (gemm.run(mistake) != right) host::fail("wrong numbers");
    });
    EXPECT(!failure.empty(), "mistake %d is not detected", int(mistake));
  }
}

TEST(mistakes_are_reported) {
  TinyGemm gemm;
  const struct {
    Mistake mistake;
    const char* message;
  } cases[] = {
      {Mistake::NoWgmmaFence, "a wgmma without a fence"},
      {Mistake::TouchedAccumulator, "an accumulator was written while a wgmma was under way"},
      {Mistake::TooManyBytes, "nothing can go on"},
      {Mistake::NoInitFence, "an mbarrier without a fence after its initialization"},
      {Mistake::NoInit, "an mbarrier that is not initialized"},
      {Mistake::TooManyArrivals, "more arrivals at an mbarrier than its count"},
      {Mistake::MissingRelease, "nothing can go on"},
      {Mistake::WrongParity, "waits for phase 0 of the mbarrier at"},
      {Mistake::NoStoreFence, "a store of bytes that no fence has made visible"},
      {Mistake::OverwrittenStore, "a write to bytes that a store may still read"},
      {Mistake::NoWaitForStores, "before a store had read shared memory"},
      {Mistake::UnencodedMap, "a tensor map that was not encoded"},
      {Mistake::OverwrittenBarrier, "an mbarrier was overwritten"},
      {Mistake::MissingWarp, "a wgmma that other warps of the warpgroup have not issued"},
      {Mistake::OperandOutside, "outside of the block's shared memory"},
  };
  for (const auto& now : cases) {
    std::string failure = failure_of([&] { gemm.run(now.mistake); });
    EXPECT(failure.find(now.message) != std::string::npos, "mistake %d: \"%s\" instead of \"%s\"", int(now.mistake),
           failure.c_str(), now.message);
  }
}

// ---- Clusters ----

namespace {

enum class ClusterMistake {
  None,
  NoFirstBarrier,
  NoLastBarrier,
  WrongRank,
  MissingArrival
};

// Block 0 multicasts a box of 16 x 64 from a matrix of 11 x 40. Then each block arrives at a barrier of both. `right`
// receives, from each block, how many numbers are in their place.
void tiny_cluster(const TensorMap* map, ClusterMistake mistake, std::vector<int>* right) {
  DYNAMIC_SHARED(memory);
  const uint32_t shared = shared_address(memory), loaded = shared + 2048, seen = loaded + 8;
  const int rank = cluster_rank();
  if (threadIdx.x == 0) {
    mbarrier_init(loaded, 1);
    mbarrier_init(seen, 2);
    mbarrier_init_fence();
  }
  if (mistake != ClusterMistake::NoFirstBarrier) cluster_sync();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(loaded, 2048);
    if (rank == 0) tma_load_multicast(shared, map, 0, 0, loaded, mistake == ClusterMistake::WrongRank ? 7 : 3);
    mbarrier_wait(loaded, 0);
    int equal = 0;
    for (uint32_t row = 0; row < 16; row++) {
      for (uint32_t column = 0; column < 64; column++) {
        uint16_t bits;
        memcpy(&bits, memory + row * 128 + ((column / 8) ^ (row % 8)) * 16 + column % 8 * 2, 2);
        equal += bits == (row < 11 && column < 40 ? 1000 + row * 40 + column : 0);
      }
    }
    right->push_back(equal);
    for (int to = 0; to < 2; to++) mbarrier_arrive_cluster(seen, to);
    // Without this wait the other block may have ended when this one arrives.
    if (mistake != ClusterMistake::NoLastBarrier) mbarrier_wait(seen, 0);
  }
  if (mistake == ClusterMistake::MissingArrival && rank == 1) return;
  if (mistake != ClusterMistake::NoLastBarrier) cluster_sync();
}

std::vector<int> run_cluster(ClusterMistake mistake, host::Order order) {
  Buffer<bf16> matrix(11 * 40);
  for (size_t i = 0; i < matrix.size(); i++) matrix[i].bits = uint16_t(1000 + i);
  TensorMap map = encode(matrix.data(), 11, 40, 16, 64);
  std::vector<int> right;
  launch(2, 32, 4096, [&] { tiny_cluster(&map, mistake, &right); }, order);
  return right;
}

}  // namespace

TEST(a_box_reaches_both_blocks_with_its_swizzle_and_zeros_outside) {
  for (bool late : {true, false}) {
    host_async::timing.late_loads = late;
    for (host::Order order : {host::Order::Forward, host::Order::Shuffled}) {
      EXPECT((run_cluster(ClusterMistake::None, order) == std::vector<int>{1024, 1024}), "late %d, order %d", late,
             int(order));
    }
  }
  host_async::timing = {};
}

TEST(mistakes_in_a_cluster_are_reported) {
  const struct {
    ClusterMistake mistake;
    const char* message;
  } cases[] = {
      {ClusterMistake::NoFirstBarrier, "mbarrier"},
      {ClusterMistake::NoLastBarrier, "has ended"},
      {ClusterMistake::WrongRank, "a block that the cluster does not have"},
      {ClusterMistake::MissingArrival, "the cluster barrier"},
  };
  for (const auto& now : cases) {
    std::string failure;
    // Races show in some order of the threads only.
    for (host::Order order : {host::Order::Forward, host::Order::Reverse, host::Order::Shuffled}) {
      if (failure.find(now.message) == std::string::npos) {
        failure = failure_of([&] { run_cluster(now.mistake, order); });
      }
    }
    EXPECT(failure.find(now.message) != std::string::npos, "mistake %d: \"%s\" instead of \"%s\"", int(now.mistake),
           failure.c_str(), now.message);
  }
}

TEST(a_store_writes_only_within_the_matrix) {
  Buffer<bf16> out(5 * 24);
  TensorMap map = encode(out.data(), 5, 24, 16, 64);
  launch(1, 32, 2048, [&] {
    DYNAMIC_SHARED(memory);
    const uint32_t shared = shared_address(memory), lane = threadIdx.x;
    // The box holds 256 row + column.
    for (uint32_t pair = 0; pair < 4; pair++) {
      uint32_t words[4];
      for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = lane / 4 + i % 2 * 8, column = 16 * pair + i / 2 * 8 + lane % 4 * 2;
        words[i] = (256 * row + column) | (256 * row + column + 1) << 16;
      }
      uint32_t chunk = (2 * pair + lane / 16) ^ (lane % 8);
      stmatrix_x4(shared + lane % 16 * 128 + chunk * 16, words[0], words[1], words[2], words[3]);
    }
    fence_proxy_async();
    __syncwarp();
    if (lane == 0) {
      tma_store(&map, 3, 8, shared);
      tma_store_commit();
      tma_store_wait<0>();
    }
  });
  for (uint32_t row = 0; row < 5; row++) {
    for (uint32_t column = 0; column < 24; column++) {
      uint32_t expected = row >= 3 && column >= 8 ? 256 * (row - 3) + column - 8 : 0xffff;
      EXPECT(out[row * 24 + column].bits == expected, "row %u column %u", row, column);
    }
  }
}

TEST(more_registers_need_a_release_of_others) {
  auto run = [](bool release) {
    launch(1, 384, 64, [release] {
      if (threadIdx.x >= 128)
        setmaxnreg_inc<232>();
      else if (release)
        setmaxnreg_dec<40>();
    });
  };
  EXPECT(failure_of([&] { run(true); }).empty(), "3 x 168 = 40 + 2 x 232");
  std::string failure = failure_of([&] { run(false); });
  EXPECT(failure.find("waits for free registers") != std::string::npos, "%s", failure.c_str());
}

TEST(invalid_tensor_maps_are_refused) {
  alignas(64) unsigned char map[128];
  alignas(64) static unsigned char matrix[4096];
  auto is_valid = [&](size_t offset, uint64_t rows, uint64_t columns, uint64_t pitch, uint32_t box_rows,
                      uint32_t box_columns) {
    return !host::encode_tensor_map(map, matrix + offset, rows, columns, pitch, box_rows, box_columns, 2, 128);
  };
  EXPECT(is_valid(0, 16, 64, 128, 16, 64), "valid");
  EXPECT(!is_valid(8, 15, 64, 128, 16, 64), "misaligned address");
  EXPECT(!is_valid(0, 16, 60, 120, 16, 64), "misaligned pitch");
  EXPECT(!is_valid(0, 16, 64, 112, 16, 64), "pitch of less than a row");
  EXPECT(!is_valid(0, 16, 64, 128, 257, 64), "too many rows in a box");
  EXPECT(!is_valid(0, 16, 128, 256, 16, 128), "a box wider than its swizzle");
  EXPECT(!is_valid(0, 0, 64, 128, 16, 64), "no rows");
}
