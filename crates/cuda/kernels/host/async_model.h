// Models of the asynchronous parts of compute capability 9.0: mbarriers, cluster barriers, and TMA with boxes, bounds,
// swizzles and multicast. wgmma_model.h has the matrix products.
//
// Each asynchronous operation happens as early or as late as the rules allow, see `Timing`: a kernel that waits for
// everything it needs gives the same bits in every mode. Wrong uses abort the process with a message. So does a wait
// that cannot end, once no thread can go on.
#pragma once
#include "../common.cuh"
#include "tensor_map.h"

#include <set>

namespace host_async {

using host::Block;
using host::block;
using host::kSystemBytes;
using host::self;
using host::shared_address;
using host::shared_bytes;
using host::Thread;

struct Timing {
  // Loads complete only when no thread can go on without one of them, in random order. Until then their destination is
  // poisoned. Early: at the call.
  bool late_loads = true;
  // Stores read shared memory when a thread waits for them. Early: at the call.
  bool late_stores = true;
  // wgmma reads its operands when a thread waits for it. Until then its accumulators are poisoned. Early: at the call.
  bool late_wgmma = true;
};
inline Timing timing;

// 8 x 8 matrices that stmatrix could not write in one pass over the banks.
inline uint64_t bank_conflicts = 0;

[[noreturn]] inline void fail(const std::string& message) {
  const Thread& thread = self();
  char place[96];
  snprintf(place, sizeof place, ": block %u thread %u: ", thread.block->index.x, thread.linear);
  host::fail(host::launch_now->name + (place + message));
}

// ---- State of the running cluster ----

struct Mbarrier {
  uint32_t count = 0, pending = 0;
  int64_t tx_bytes = 0;  // expected and not yet written
  uint64_t phases = 0;   // completed
  const Thread* initialized_by = nullptr;
  bool fenced = false;
  uint64_t cluster_generation = 0;          // at the initialization
  std::map<const Thread*, int64_t> waited;  // the phase that each thread last waited for
};

struct Load {
  host::TensorMapModel map;
  int row, column;
  Block* to;
  uint32_t address, barrier;
};

struct Store {
  host::TensorMapModel map;
  int row, column;
  Block* from;
  uint32_t address;
};

// The stores of a thread that may still read shared memory: uncommitted ones, then the committed groups.
struct Stores {
  std::vector<Store> open;
  std::deque<std::vector<Store>> groups;
};

struct ClusterBarrier {
  uint64_t generation = 0;
  uint32_t arrived = 0;
  std::map<const Thread*, uint64_t> arrivals;
};

using Place = std::pair<uint32_t, uint32_t>;  // rank, address

struct State {
  uint64_t epoch = 0;
  std::map<Place, Mbarrier> mbarriers;
  std::vector<Load> loads;
  std::map<const Thread*, Stores> stores;
  ClusterBarrier cluster;
  // 16-byte chunks that were written through the generic proxy and are not yet visible to TMA.
  std::set<Place> unfenced;
  std::map<const Thread*, std::vector<uint32_t>> unfenced_by;
};

inline State& state();
inline void complete(const Load& load);

// Completes one load, since no thread can go on without one.
inline bool settle() {
  std::vector<Load>& loads = state().loads;
  if (loads.empty()) return false;
  uint64_t& random = host::launch_now->random;
  random = random * 6364136223846793005u + 1442695040888963407u;
  std::swap(loads[(random >> 33) % loads.size()], loads.back());
  Load load = loads.back();
  loads.pop_back();
  complete(load);
  return true;
}

// Checks, after the last thread has returned, that nothing is still under way.
inline void finish() {
  auto require = [](bool holds, const char* what) {
    if (!holds) host::fail(std::string(host::launch_now->name) + ": the blocks ended " + what);
  };
  require(state().loads.empty(), "before a load was complete");
  for (auto& stores : state().stores) {
    require(stores.second.open.empty() && stores.second.groups.empty(), "before a store had read shared memory");
  }
  require(state().cluster.arrived == 0, "while threads waited at the cluster barrier");
}

// The state of the running cluster: empty at its start.
inline State& state() {
  static thread_local State now;
  if (now.epoch != host::launch_now->epoch) {
    now = State{};
    now.epoch = host::launch_now->epoch;
    host::launch_now->settle = settle;
    host::launch_now->finish = finish;
  }
  return now;
}

// ---- mbarriers ----

// The contents of an initialized mbarrier. Another value means that something overwrote it.
constexpr uint64_t kMbarrierMark = 0x7265697272616221u;

inline Mbarrier& mbarrier(Block& of, uint32_t address) {
  auto found = state().mbarriers.find({of.rank, address});
  uint64_t contents;
  memcpy(&contents, shared_bytes(of, address, 8, 8), 8);
  if (found == state().mbarriers.end()) fail("an mbarrier that is not initialized");
  if (contents != kMbarrierMark) fail("an mbarrier was overwritten");
  return found->second;
}

// An mbarrier that is used by TMA or by another block.
inline Mbarrier& visible_mbarrier(Block& of, uint32_t address) {
  Mbarrier& barrier = mbarrier(of, address);
  if (!barrier.fenced) fail("an mbarrier without a fence after its initialization");
  if (&of != &block() && barrier.cluster_generation == state().cluster.generation) {
    fail("another block's mbarrier without a cluster barrier after its initialization");
  }
  if (!of.live) fail("an mbarrier of a block that has ended");
  return barrier;
}

inline void complete_phase_if_done(Mbarrier& barrier) {
  if (barrier.pending || barrier.tx_bytes) return;
  barrier.phases++;
  barrier.pending = barrier.count;
}

inline void mbarrier_init(uint32_t address, int count) {
  if (count < 1 || count >= 1 << 20) fail("an mbarrier count outside of 1 to 2^20 - 1");
  memcpy(shared_bytes(block(), address, 8, 8), &kMbarrierMark, 8);
  Mbarrier& barrier = state().mbarriers[{block().rank, address}];
  barrier = Mbarrier{};
  barrier.count = barrier.pending = uint32_t(count);
  barrier.initialized_by = &self();
  barrier.cluster_generation = state().cluster.generation;
}

inline void mbarrier_init_fence() {
  for (auto& barrier : state().mbarriers) {
    if (barrier.second.initialized_by == &self()) barrier.second.fenced = true;
  }
}

inline void add_tx_bytes(Mbarrier& barrier, int64_t bytes) {
  barrier.tx_bytes += bytes;
  if (std::abs(barrier.tx_bytes) >= 1 << 20) fail("more bytes under way than an mbarrier can count");
}

inline void arrive(Mbarrier& barrier) {
  if (!barrier.pending) fail("more arrivals at an mbarrier than its count");
  barrier.pending--;
  complete_phase_if_done(barrier);
}

inline void mbarrier_arrive(uint32_t address) { arrive(mbarrier(block(), address)); }

inline void mbarrier_arrive_cluster(uint32_t address, int rank) {
  arrive(visible_mbarrier(host::peer(uint32_t(rank)), address));
}

inline void mbarrier_arrive_expect_tx(uint32_t address, int bytes) {
  Mbarrier& barrier = mbarrier(block(), address);
  add_tx_bytes(barrier, bytes);
  arrive(barrier);
}

struct PhaseWait {
  const Mbarrier* barrier;
  uint32_t parity;
  bool is_over() const { return (barrier->phases & 1) != parity; }
};

inline void mbarrier_wait(uint32_t address, uint32_t parity) {
  if (parity > 1) fail("a parity other than 0 and 1");
  Mbarrier& barrier = mbarrier(block(), address);
  // A device knows only the parity. A thread waits for one phase after the other, so the model knows the number as
  // well: -1 is the phase before the first.
  auto last = barrier.waited.find(&self());
  int64_t phase = parity ? -1 : 0;
  if (last != barrier.waited.end()) phase = last->second + ((last->second & 1) != int64_t(parity));
  barrier.waited[&self()] = phase;
  if (int64_t(barrier.phases) > phase + 1) fail("an mbarrier was a phase ahead of a thread that waits for it");
  PhaseWait wait{&barrier, parity};
  if (wait.is_over()) return;
  static thread_local std::set<std::string> texts;
  std::string text = "phase " + std::to_string(phase) + " of the mbarrier at " + std::to_string(address - kSystemBytes);
  host::wait_until([](void* argument) { return static_cast<PhaseWait*>(argument)->is_over(); }, &wait,
                   texts.insert(text).first->c_str());
}

// ---- Clusters ----

inline void cluster_arrive() {
  ClusterBarrier& barrier = state().cluster;
  auto last = barrier.arrivals.find(&self());
  if (last != barrier.arrivals.end() && last->second == barrier.generation) {
    fail("two arrivals at the cluster barrier without a wait");
  }
  barrier.arrivals[&self()] = barrier.generation;
  if (++barrier.arrived == uint32_t(host::launch_now->cluster.size()) * host::launch_now->block.x) {
    barrier.arrived = 0;
    barrier.generation++;
  }
}

inline void cluster_wait() {
  ClusterBarrier& barrier = state().cluster;
  auto last = barrier.arrivals.find(&self());
  if (last == barrier.arrivals.end()) fail("a wait at the cluster barrier without an arrival");
  host::wait_while_equal(&barrier.generation, last->second, "the cluster barrier");
}

// ---- TMA ----

inline host::TensorMapModel tensor_map(const TensorMap* map) {
  host::TensorMapModel model;
  memcpy(&model, map, sizeof model);
  if (reinterpret_cast<uintptr_t>(map) % 64) fail("a tensor map that is not aligned to 64 bytes");
  if (model.mark != host::kTensorMapMark) fail("a tensor map that was not encoded");
  return model;
}

// Swizzling exchanges the 16-byte chunks of a row, depending on the row's place in memory.
inline uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes) {
  switch (swizzle_bytes) {
    case 128:
      return address ^ (address >> 3 & 0x70);
    case 64:
      return address ^ (address >> 3 & 0x30);
    case 32:
      return address ^ (address >> 3 & 0x10);
    default:
      return address;
  }
}

inline uint32_t box_bytes(const host::TensorMapModel& map) {
  return map.box_rows * map.box_columns * map.element_bytes;
}

// Calls `visit(global, shared, bytes)` for each 16-byte chunk of the box at `address`: `bytes` of it lie in the matrix.
template <class Visit>
inline void for_each_chunk(const host::TensorMapModel& map, int row, int column, Block& of, uint32_t address,
                           Visit visit) {
  shared_bytes(of, address, box_bytes(map), 128);
  if (column < 0) fail("the model has no boxes that begin left of the matrix");
  const uint32_t elements = 16 / map.element_bytes;
  for (uint32_t r = 0; r < map.box_rows; r++) {
    for (uint32_t c = 0; c < map.box_columns; c += elements) {
      int64_t y = int64_t(row) + r, x = int64_t(column) + c;
      bool inside = y >= 0 && y < int64_t(map.rows) && x < int64_t(map.columns);
      auto* global = static_cast<unsigned char*>(map.base);
      size_t bytes = 0;
      if (inside) {
        global += uint64_t(y) * map.pitch_bytes + uint64_t(x) * map.element_bytes;
        bytes = size_t(std::min<int64_t>(elements, int64_t(map.columns) - x)) * map.element_bytes;
      }
      uint32_t at = swizzled(address + (r * map.box_columns + c) * map.element_bytes, map.swizzle_bytes);
      visit(global, shared_bytes(of, at, 16, 16), bytes);
    }
  }
}

inline void complete(const Load& load) {
  if (!load.to->live) fail("a load into a block that has ended");
  for_each_chunk(load.map, load.row, load.column, *load.to, load.address,
                 [](const unsigned char* global, unsigned char* shared, size_t bytes) {
                   memset(shared, 0, 16);
                   memcpy(shared, global, bytes);
                 });
  Mbarrier& barrier = mbarrier(*load.to, load.barrier);
  add_tx_bytes(barrier, -int64_t(box_bytes(load.map)));
  complete_phase_if_done(barrier);
}

inline void tma_load_multicast(uint32_t address, const TensorMap* map, int row, int column, uint32_t barrier,
                               int ranks) {
  Load load{tensor_map(map), row, column, nullptr, address, barrier};
  const size_t blocks = host::launch_now->cluster.size();
  if (ranks >> blocks) fail("a load into a block that the cluster does not have");
  for (uint32_t rank = 0; rank < blocks; rank++) {
    if (!(ranks >> rank & 1)) continue;
    load.to = &host::peer(rank);
    visible_mbarrier(*load.to, barrier);
    if (timing.late_loads) {
      for_each_chunk(load.map, row, column, *load.to, address,
                     [](const unsigned char*, unsigned char* shared, size_t) { memset(shared, 0xff, 16); });
      state().loads.push_back(load);
    } else {
      complete(load);
    }
  }
}

inline void perform(const Store& store) {
  for_each_chunk(
      store.map, store.row, store.column, *store.from, store.address,
      [](unsigned char* global, const unsigned char* shared, size_t bytes) { memcpy(global, shared, bytes); });
}

inline void tma_store(const TensorMap* map, int row, int column, uint32_t address) {
  Store store{tensor_map(map), row, column, &block(), address};
  for (uint32_t at = address; at < address + box_bytes(store.map); at += 16) {
    if (state().unfenced.count({block().rank, at})) fail("a store of bytes that no fence has made visible to TMA");
  }
  if (!timing.late_stores) perform(store);
  state().stores[&self()].open.push_back(store);
}

inline void tma_store_commit() {
  Stores& stores = state().stores[&self()];
  stores.groups.push_back(std::move(stores.open));
  stores.open.clear();
}

// Waits until all but the newest `left` groups of this thread have read shared memory.
inline void tma_store_wait(uint32_t left) {
  Stores& stores = state().stores[&self()];
  for (; stores.groups.size() > left; stores.groups.pop_front()) {
    if (!timing.late_stores) continue;
    for (const Store& store : stores.groups.front()) perform(store);
  }
}

// Makes this thread's writes visible to TMA.
inline void fence_proxy_async() {
  std::vector<uint32_t>& addresses = state().unfenced_by[&self()];
  for (uint32_t address : addresses) state().unfenced.erase({block().rank, address});
  addresses.clear();
}

// Records that this thread wrote 16 bytes through the generic proxy.
inline void record_write(uint32_t address) {
  for (auto& stores : state().stores) {
    for (auto& group : stores.second.groups) {
      for (const Store& store : group) {
        bool overlaps = address >= store.address && address < store.address + box_bytes(store.map);
        if (store.from == &block() && overlaps) fail("a write to bytes that a store may still read");
      }
    }
  }
  state().unfenced.insert({block().rank, address});
  state().unfenced_by[&self()].push_back(address);
}

struct LaneRows {
  uint32_t row_address, words[4];
};

inline void stmatrix_x4(uint32_t row_address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  host::collective<uint32_t, LaneRows>(
      {row_address, {a, b, c, d}},
      [](const LaneRows* const* lanes, uint32_t**) {
        for (int matrix = 0; matrix < 4; matrix++) {
          uint32_t banks = 0;
          for (int row = 0; row < 8; row++) {
            uint32_t address = lanes[8 * matrix + row]->row_address;
            banks |= 1u << address / 16 % 8;
            unsigned char* to = shared_bytes(block(), address, 16, 16);
            for (int pair = 0; pair < 4; pair++) memcpy(to + 4 * pair, &lanes[4 * row + pair]->words[matrix], 4);
          }
          if (banks != 0xff) bank_conflicts++;
        }
      },
      "stmatrix");
  record_write(row_address);
}

}  // namespace host_async
