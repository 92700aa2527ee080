// A model of wgmma m64n256k16 and of register reallocation (setmaxnreg).
//
// The descriptors of the operands are decoded bit by bit, so a wrong one gives wrong numbers or aborts the process. So
// does the use of an accumulator or an operand while a product is under way.
#pragma once
#include "async_model.h"

namespace host_wgmma {

using host::block;
using host::self;
using host_async::fail;

// For inner loops over registers and operands whose bounds are checked elsewhere.
#if defined(__GNUC__) && !defined(__clang__)
#define HOST_WGMMA_FAST __attribute__((no_sanitize("address", "undefined"), optimize("O3")))
#else
#define HOST_WGMMA_FAST
#endif

constexpr int kRows = 64, kColumns = 256, kDepth = 16;
constexpr int kWarpRows = kRows / 4;
constexpr int kRegisters = kRows * kColumns / 128;  // accumulators of a lane

// ---- Operands ----

// A K-major matrix of 16-bit numbers in shared memory, in groups of 8 rows.
struct Descriptor {
  uint32_t start, leading_bytes, stride_bytes, swizzle_bytes;

  explicit Descriptor(uint64_t bits) {
    static const uint32_t swizzles[4] = {0, 128, 64, 32};
    start = uint32_t(bits & 0x3fff) << 4;
    leading_bytes = uint32_t(bits >> 16 & 0x3fff) << 4;
    stride_bytes = uint32_t(bits >> 32 & 0x3fff) << 4;
    swizzle_bytes = swizzles[bits >> 62];
    if (bits & 0x3ff1c000c000c000u) fail("a descriptor with reserved bits");
    if (bits >> 49 & 7) fail("a descriptor with a base offset, which the model does not have");
  }

  // Address of the 16-byte chunk of a row: 8 numbers along K.
  uint32_t address(int row, int chunk) const {
    uint32_t group = start + uint32_t(row / 8) * stride_bytes;
    if (!swizzle_bytes) return group + uint32_t(chunk) * leading_bytes + uint32_t(row % 8) * 16;
    return host_async::swizzled(group + uint32_t(row % 8) * swizzle_bytes + uint32_t(chunk) * 16, swizzle_bytes);
  }
};

enum class Type {
  Bf16,
  F16
};

HOST_WGMMA_FAST inline float number(Type type, uint16_t bits) {
  if (type == Type::Bf16) {
    uint32_t wide = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
  }
  _Float16 x;
  memcpy(&x, &bits, 2);
  return x;
}

// Reads rows of an operand as f32, transposed.
template <int Rows>
HOST_WGMMA_FAST inline void read_rows(Type type, const Descriptor& from, int first, float (&to)[kDepth][Rows]) {
  for (int row = 0; row < Rows; row++) {
    for (int chunk = 0; chunk < kDepth / 8; chunk++) {
      const unsigned char* at = host::shared_bytes(block(), from.address(first + row, chunk), 16, 16);
      for (int i = 0; i < 8; i++) to[8 * chunk + i][row] = number(type, uint16_t(at[2 * i] | at[2 * i + 1] << 8));
    }
  }
}

// ---- Accumulators ----

// Index of a lane's i-th register in the warp's 16 x 256 matrix.
HOST_WGMMA_FAST inline int index_of(int lane, int i) {
  int row = lane / 4 + (i & 2) * 4, column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
  return row * kColumns + column;
}

// A signalling NaN: any arithmetic changes its bits.
constexpr uint32_t kPoison = 0x7fa0dead;

// The accumulators of a warp. While products are under way, `values` holds them and the registers are poisoned.
struct Accumulators {
  float* registers[32];
  int under_way = 0;
  std::vector<float> values = std::vector<float>(size_t(kWarpRows * kColumns));

  HOST_WGMMA_FAST void load_registers() {
    float* to = values.data();
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < kRegisters; i++) to[index_of(lane, i)] = registers[lane][i];
    }
  }
  HOST_WGMMA_FAST void store_registers() {
    const float* from = values.data();
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < kRegisters; i++) registers[lane][i] = from[index_of(lane, i)];
    }
  }
  HOST_WGMMA_FAST void poison() {
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < kRegisters; i++) memcpy(&registers[lane][i], &kPoison, 4);
    }
  }
  HOST_WGMMA_FAST bool is_poisoned() const {
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < kRegisters; i++)
        if (memcmp(&registers[lane][i], &kPoison, 4)) return false;
    }
    return true;
  }
};

// One wgmma of a warp.
struct Product {
  uint64_t a, b;
  Type type;
  bool accumulate;
  float* registers;  // of lane 0

  bool same_operands(const Product& other) const {
    return a == other.a && b == other.b && type == other.type && accumulate == other.accumulate;
  }
};

HOST_WGMMA_FAST inline void multiply_add(const float (&a)[kDepth][kWarpRows], const float (&b)[kDepth][kColumns],
                                         float* values) {
  for (int row = 0; row < kWarpRows; row++) {
    for (int k = 0; k < kDepth; k++) {
      float x = a[k][row];
      for (int column = 0; column < kColumns; column++) values[row * kColumns + column] += x * b[k][column];
    }
  }
}

inline void perform(const Product& product, Accumulators& accumulators) {
  static thread_local float a[kDepth][kWarpRows], b[kDepth][kColumns];
  read_rows<kWarpRows>(product.type, Descriptor(product.a), int(self().warp % 4) * kWarpRows, a);
  read_rows<kColumns>(product.type, Descriptor(product.b), 0, b);
  std::vector<float>& values = accumulators.values;
  if (!product.accumulate) std::fill(values.begin(), values.end(), 0.f);
  multiply_add(a, b, values.data());
}

// ---- State of the running cluster ----

// The products of a warp: uncommitted ones, then the committed groups that nobody has waited for.
struct WarpProducts {
  bool fenced = false;
  std::vector<Product> open;
  std::deque<std::vector<Product>> groups;
  std::map<float*, Accumulators> accumulators;  // by the registers of lane 0
  uint64_t issued = 0, completed = 0;
};

using Place = std::pair<uint32_t, uint32_t>;  // rank, and warp or warpgroup

struct State {
  uint64_t epoch = 0;
  std::map<Place, WarpProducts> warps;
  std::map<Place, std::vector<Product>> issued;  // by a warpgroup, in order
  std::map<uint32_t, int> free_registers;        // by rank
  std::map<Place, int> registers;                // of each thread of a warp
};

inline void finish();

inline State& state() {
  static thread_local State now;
  if (now.epoch != host::launch_now->epoch) {
    now = State{};
    now.epoch = host::launch_now->epoch;
    host_async::state();
    host::launch_now->finish = finish;
  }
  return now;
}

// Checks, after the last thread has returned, that nothing is still under way.
inline void finish() {
  for (auto& warp : state().warps) {
    if (warp.second.open.empty() && warp.second.groups.empty()) continue;
    host::fail(std::string(host::launch_now->name) + ": the blocks ended before a wgmma was waited for");
  }
  host_async::finish();
}

inline WarpProducts& this_warp() { return state().warps[{block().rank, self().warp}]; }

struct Nothing {};

inline void require_whole_warp() {
  if (block().warps[self().warp].live != 32) fail("a warpgroup instruction in a warp of fewer than 32 threads");
}

// All lanes of the warp arrive, and the last one performs `action`.
inline void warp_collective(void (*action)(const Nothing* const*, Nothing**), const char* name) {
  require_whole_warp();
  host::collective<Nothing, Nothing>(Nothing{}, action, name);
}

// ---- wgmma ----

inline void wgmma_fence() {
  warp_collective([](const Nothing* const*, Nothing**) { this_warp().fenced = true; }, "wgmma.fence");
}

inline void issue(const Product* const* lanes, Nothing**) {
  const Product& product = *lanes[0];
  WarpProducts& warp = this_warp();
  for (int lane = 1; lane < 32; lane++) {
    if (!product.same_operands(*lanes[lane])) fail("a wgmma with different operands in the lanes of a warp");
  }
  if (!warp.fenced) fail("a wgmma without a fence since the last wait");
  std::vector<Product>& issued = state().issued[{block().rank, self().warp / 4}];
  if (warp.issued == issued.size()) issued.push_back(product);
  if (!product.same_operands(issued[size_t(warp.issued++)])) {
    fail("a wgmma with different operands in the warps of a warpgroup");
  }
  Accumulators& accumulators = warp.accumulators[product.registers];
  for (int lane = 0; lane < 32; lane++) accumulators.registers[lane] = lanes[lane]->registers;
  if (!host_async::timing.late_wgmma) {
    if (product.accumulate) accumulators.load_registers();
    perform(product, accumulators);
    accumulators.store_registers();
  } else if (!accumulators.under_way++) {
    accumulators.load_registers();
    accumulators.poison();
  }
  warp.open.push_back(product);
}

template <class T> inline void wgmma(float (&accumulators)[kRegisters], uint64_t a, uint64_t b, bool accumulate) {
  require_whole_warp();
  Type type = std::is_same<T, bf16>::value ? Type::Bf16 : Type::F16;
  host::collective<Nothing, Product>({a, b, type, accumulate, accumulators}, issue, "wgmma");
}

inline void wgmma_commit() {
  warp_collective(
      [](const Nothing* const*, Nothing**) {
        WarpProducts& warp = this_warp();
        warp.groups.push_back(std::move(warp.open));
        warp.open.clear();
      },
      "wgmma.commit_group");
}

inline void complete_oldest_group(WarpProducts& warp) {
  for (const Product& product : warp.groups.front()) {
    warp.completed++;
    if (!host_async::timing.late_wgmma) continue;
    Accumulators& accumulators = warp.accumulators[product.registers];
    perform(product, accumulators);
    if (--accumulators.under_way) continue;
    if (!accumulators.is_poisoned()) fail("an accumulator was written while a wgmma was under way");
    accumulators.store_registers();
  }
  warp.groups.pop_front();
}

struct IssuedByAllWarps {
  uint32_t rank, warpgroup;
  uint64_t count;

  bool holds() const {
    for (uint32_t i = 0; i < 4; i++)
      if (state().warps[{rank, 4 * warpgroup + i}].issued < count) return false;
    return true;
  }
};

// A wgmma completes only after all four warps have issued it.
template <int Left> inline void wgmma_wait() {
  warp_collective([](const Nothing* const*, Nothing**) {}, "wgmma.wait_group");
  const WarpProducts& warp = this_warp();
  IssuedByAllWarps issued{block().rank, self().warp / 4, warp.completed};
  for (size_t i = 0; i + Left < warp.groups.size(); i++) issued.count += warp.groups[i].size();
  host::wait_until([](void* argument) { return static_cast<IssuedByAllWarps*>(argument)->holds(); }, &issued,
                   "a wgmma that other warps of the warpgroup have not issued");
  warp_collective(
      [](const Nothing* const*, Nothing**) {
        WarpProducts& warp = this_warp();
        while (warp.groups.size() > Left) complete_oldest_group(warp);
        warp.fenced = false;
      },
      "wgmma.wait_group");
}

// ---- Register reallocation ----

inline int& registers_of_warp() {
  int at_launch = 65536 / int(host::launch_now->block.x) / 8 * 8;
  return state().registers.try_emplace({block().rank, self().warp}, at_launch).first->second;
}

template <int Count> inline void setmaxnreg_dec() {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0, "the count is a multiple of 8 within 24 to 256");
  warp_collective(
      [](const Nothing* const*, Nothing**) {
        if (registers_of_warp() < Count) fail("setmaxnreg.dec to more registers than the warp has");
        state().free_registers[block().rank] += 32 * (registers_of_warp() - Count);
        registers_of_warp() = Count;
      },
      "setmaxnreg.dec");
}

struct FreeRegisters {
  uint32_t rank;
  int needed;
  bool suffice() const { return state().free_registers[rank] >= needed; }
};

template <int Count> inline void setmaxnreg_inc() {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0, "the count is a multiple of 8 within 24 to 256");
  if (registers_of_warp() > Count) fail("setmaxnreg.inc to fewer registers than the warp has");
  if (self().lane == 0) {
    FreeRegisters free{block().rank, 32 * (Count - registers_of_warp())};
    host::wait_until([](void* argument) { return static_cast<FreeRegisters*>(argument)->suffice(); }, &free,
                     "free registers");
    state().free_registers[block().rank] -= free.needed;
  }
  warp_collective([](const Nothing* const*, Nothing**) { registers_of_warp() = Count; }, "setmaxnreg.inc");
}

}  // namespace host_wgmma
