// Runs CUDA kernels on the host, for tests: every thread of a block is a fiber, blocks run one after another.
//
// The kernels are a subset of CUDA C++: they use the intrinsics below, dynamic shared memory alone, and inline assembly
// only behind functions that have a model here. A wait that can never end aborts the process with a message instead of
// hanging. Threads run in a chosen order between waits: two orders that give different bits show a race.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __grid_constant__
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define CLUSTER(n)

// Aligned as on the device, so that UndefinedBehaviorSanitizer finds what would be a misaligned address there.
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
static inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace host {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

// In which order the threads of a block run between waits.
enum class Order { Forward, Reverse, Shuffled };

[[noreturn]] inline void fail(const std::string& message) {
  fprintf(stderr, "kernel on the host: %s\n", message.c_str());
  fflush(stderr);
  abort();
}

struct Block;

struct Thread {
  Dim3 index;
  uint32_t linear = 0, lane = 0, warp = 0;
  Block* block = nullptr;
  // The thread runs again when this returns true.
  bool (*ready)(void*) = nullptr;
  void* ready_argument = nullptr;
  const char* waits_for = "";
  bool done = false;
  std::unique_ptr<unsigned char[]> stack;
  void* stack_pointer = nullptr;
#if !defined(__x86_64__)
  ucontext_t context;
#endif
  void* fake_stack = nullptr;
};

constexpr size_t kStack = 256 << 10;
constexpr size_t kCollectiveBytes = 256;

// One collective operation of a warp at a time: lanes leave their part, the last one computes, all read.
struct Warp {
  uint64_t generation = 0;
  uint32_t arrived = 0, live = 0;
  const void* operation = nullptr;
  alignas(16) unsigned char in[32][kCollectiveBytes];
  alignas(16) unsigned char out[32][kCollectiveBytes];
};

struct Barrier {
  uint64_t generation = 0;
  uint32_t arrived = 0;
};

struct Block {
  Dim3 index;
  uint32_t rank = 0;  // within its cluster
  uint32_t live = 0;
  std::vector<unsigned char> memory;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  std::vector<Warp> warps;
  Barrier barriers[16];
  std::deque<Thread> threads;
};

// What runs now: one launch a host thread.
struct Launch {
  Dim3 grid, block;
  const char* name = "";
  const std::function<void()>* body = nullptr;
  std::vector<std::unique_ptr<Block>> cluster;  // blocks that run together
  Thread* current = nullptr;
  void* scheduler_stack = nullptr;
#if !defined(__x86_64__)
  ucontext_t scheduler;
#endif
  const void* scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
  void* scheduler_fake_stack = nullptr;
  uint64_t random = 1;
  // Called when no thread can run, before that is an error: completes asynchronous operations. True: something changed.
  bool (*settle)() = nullptr;
  // A number that no other cluster of blocks has had; models of asynchronous operations reset when it changes.
  uint64_t epoch = 0;
  // Called when all threads of a cluster have returned: whatever was begun must be complete by then.
  void (*finish)() = nullptr;
};

inline thread_local Launch* launch_now = nullptr;
inline thread_local uint64_t last_epoch = 0;
inline Thread& self() { return *launch_now->current; }
inline Block& block() { return *self().block; }
// The block of that rank in this block's cluster.
inline Block& peer(uint32_t rank) { return *launch_now->cluster.at(rank); }

#if defined(__x86_64__)
extern "C" void host_switch_stack(void** from, void* to);
#endif

inline void switch_to(Thread& thread) {
  Launch& launch = *launch_now;
  launch.current = &thread;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&launch.scheduler_fake_stack, thread.stack.get(), kStack);
#endif
#if defined(__x86_64__)
  host_switch_stack(&launch.scheduler_stack, thread.stack_pointer);
#else
  swapcontext(&launch.scheduler, &thread.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(launch.scheduler_fake_stack, nullptr, nullptr);
#endif
}

inline void switch_to_scheduler(bool for_good = false) {
  Launch& launch = *launch_now;
  Thread& thread = self();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &thread.fake_stack, launch.scheduler_bottom,
                                 launch.scheduler_size);
#endif
  (void)for_good;
#if defined(__x86_64__)
  host_switch_stack(&thread.stack_pointer, launch.scheduler_stack);
#else
  swapcontext(&thread.context, &launch.scheduler);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(thread.fake_stack, nullptr, nullptr);
#endif
}

// The thread waits until `ready(argument)` is true.
inline void wait_until(bool (*ready)(void*), void* argument, const char* what) {
  if (ready(argument)) return;
  Thread& thread = self();
  thread.ready = ready;
  thread.ready_argument = argument;
  thread.waits_for = what;
  switch_to_scheduler();
}

struct Changed {
  const uint64_t* counter;
  uint64_t value;
};

// The thread waits until the counter no longer has this value.
inline void wait_while_equal(const uint64_t* counter, uint64_t value, const char* what) {
  Changed changed{counter, value};
  wait_until(
      [](void* argument) {
        auto* changed = static_cast<Changed*>(argument);
        return *changed->counter != changed->value;
      },
      &changed, what);
}

// A barrier of `count` threads of the block; 0 is all that have not returned.
inline void sync(uint32_t id, uint32_t count) {
  Barrier& barrier = block().barriers[id];
  uint64_t generation = barrier.generation;
  barrier.arrived++;
  if (barrier.arrived >= (count ? count : block().live)) {
    barrier.arrived = 0;
    barrier.generation++;
    return;
  }
  wait_while_equal(&barrier.generation, generation, id ? "a named barrier" : "__syncthreads");
}

// Arrives at a named barrier and does not wait.
inline void arrive(uint32_t id, uint32_t count) {
  Barrier& barrier = block().barriers[id];
  if (++barrier.arrived >= count) {
    barrier.arrived = 0;
    barrier.generation++;
  }
}

// The shared window begins with 1 KiB that belongs to the system, as on a device.
constexpr uint32_t kSystemBytes = 1024;

// The 32-bit address of a byte of the block's shared memory.
inline uint32_t shared_address(const void* pointer) {
  auto* byte = static_cast<const unsigned char*>(pointer);
  if (byte < block().shared || byte > block().shared + block().shared_bytes) {
    fail(std::string(launch_now->name) + ": not a pointer to the block's shared memory");
  }
  return uint32_t(byte - block().shared) + kSystemBytes;
}

// The bytes at an address of a block's shared memory.
inline unsigned char* shared_bytes(Block& of, uint32_t address, uint32_t bytes, uint32_t alignment) {
  if (address % alignment) {
    fail(std::string(launch_now->name) + ": a shared address is not a multiple of " + std::to_string(alignment));
  }
  if (address < kSystemBytes || address - kSystemBytes + bytes > of.shared_bytes) {
    fail(std::string(launch_now->name) + ": an access outside of the block's shared memory");
  }
  return of.shared + (address - kSystemBytes);
}

// All lanes of the warp leave `in`; `combine` makes each lane's result of all, once.
template <class Out, class In>
inline Out collective(const In& in, void (*combine)(const In* const*, Out**), const char* what) {
  static_assert(sizeof(In) <= kCollectiveBytes && sizeof(Out) <= kCollectiveBytes, "a lane's part is too large");
  Thread& thread = self();
  Warp& warp = block().warps[thread.warp];
  const void* operation = reinterpret_cast<const void*>(combine);
  if (warp.arrived == 0)
    warp.operation = operation;
  else if (warp.operation != operation)
    fail(std::string(launch_now->name) + ": lanes of a warp meet at different operations, one is " + what);
  memcpy(warp.in[thread.lane], &in, sizeof(In));
  uint64_t generation = warp.generation;
  if (++warp.arrived == warp.live) {
    const In* ins[32];
    Out* outs[32];
    for (int lane = 0; lane < 32; lane++) {
      ins[lane] = reinterpret_cast<const In*>(warp.in[lane]);
      outs[lane] = reinterpret_cast<Out*>(warp.out[lane]);
    }
    combine(ins, outs);
    warp.arrived = 0;
    warp.generation++;
  } else {
    wait_while_equal(&warp.generation, generation, what);
  }
  Out out;
  memcpy(&out, warp.out[thread.lane], sizeof(Out));
  return out;
}

extern "C" inline void host_thread_main() {
  Launch& launch = *launch_now;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &launch.scheduler_bottom, &launch.scheduler_size);
#endif
  (*launch.body)();
  Thread& thread = self();
  thread.done = true;
  Block& block = *thread.block;
  block.live--;
  Warp& warp = block.warps[thread.warp];
  warp.live--;
  // Those that wait for all threads wait for one less.
  Barrier& barrier = block.barriers[0];
  if (barrier.arrived && barrier.arrived >= block.live) {
    barrier.arrived = 0;
    barrier.generation++;
  }
  switch_to_scheduler(true);
  fail("a thread ran on after its end");
}

inline void prepare(Thread& thread) {
  if (!thread.stack) thread.stack.reset(new unsigned char[kStack]);
#if defined(__x86_64__)
  auto top = reinterpret_cast<uintptr_t>(thread.stack.get() + kStack) & ~uintptr_t(63);
#if defined(__SANITIZE_ADDRESS__)
  // The last thread that had this stack left its outermost frames on it.
  __asan_unpoison_memory_region(thread.stack.get(), kStack);
#endif
  auto* words = reinterpret_cast<void**>(top);
  // As host_switch_stack leaves it: six registers, the return address, and a word that keeps calls aligned.
  *--words = nullptr;
  *--words = reinterpret_cast<void*>(&host_thread_main);
  for (int i = 0; i < 6; i++) *--words = nullptr;
  thread.stack_pointer = words;
#else
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack.get();
  thread.context.uc_stack.ss_size = kStack;
  thread.context.uc_link = nullptr;
  makecontext(&thread.context, host_thread_main, 0);
#endif
}

inline std::string place(const Thread& thread) {
  char text[160];
  const Block& block = *thread.block;
  snprintf(text, sizeof text, "block (%u, %u, %u) thread %u waits for %s", block.index.x, block.index.y, block.index.z,
           thread.linear, thread.waits_for);
  return text;
}

inline void run_cluster(Launch& launch, Order order) {
  std::vector<Thread*> threads;
  for (auto& block : launch.cluster)
    for (auto& thread : block->threads) threads.push_back(&thread);
  if (order == Order::Reverse)
    for (size_t i = 0; i < threads.size() / 2; i++) std::swap(threads[i], threads[threads.size() - 1 - i]);
  size_t left = threads.size();
  while (left) {
    bool moved = false;
    if (order == Order::Shuffled) {
      for (size_t i = threads.size(); i > 1; i--) {
        launch.random = launch.random * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(threads[i - 1], threads[(launch.random >> 33) % i]);
      }
    }
    for (Thread* thread : threads) {
      if (thread->done) continue;
      if (thread->ready && !thread->ready(thread->ready_argument)) continue;
      thread->ready = nullptr;
      switch_to(*thread);
      moved = true;
      if (thread->done) left--;
    }
    if (!moved && !(launch.settle && launch.settle())) {
      for (Thread* thread : threads)
        if (!thread->done) fail(std::string(launch.name) + ": nothing can go on: " + place(*thread));
    }
  }
}

// Runs a grid of blocks, `cluster` neighbours along x at a time.
inline void launch(const char* name, Dim3 grid, Dim3 block, size_t shared_bytes, uint32_t cluster, Order order,
                   uint64_t seed, const std::function<void()>& body, bool (*settle)() = nullptr) {
  Launch launch;
  launch.name = name;
  launch.grid = grid;
  launch.block = block;
  launch.body = &body;
  launch.random = seed * 2 + 1;
  launch.settle = settle;
  if (grid.x % cluster) fail(std::string(name) + ": the grid is no multiple of the cluster");
  if (shared_bytes > (227u << 10)) fail(std::string(name) + ": more shared memory than a multiprocessor has");
  Launch* before = launch_now;
  launch_now = &launch;
  uint32_t count = block.x * block.y * block.z;
  std::vector<uint32_t> blocks(grid.x / cluster * grid.y * grid.z);
  for (size_t i = 0; i < blocks.size(); i++) blocks[i] = order == Order::Reverse ? blocks.size() - 1 - i : i;
  for (uint32_t number : blocks) {
    for (uint32_t rank = 0; rank < cluster; rank++) {
      if (launch.cluster.size() <= rank) launch.cluster.push_back(std::make_unique<Block>());
      Block& now = *launch.cluster[rank];
      uint32_t first = number % (grid.x / cluster) * cluster;
      now.index = {first + rank, number / (grid.x / cluster) % grid.y, number / (grid.x / cluster) / grid.y};
      now.rank = rank;
      now.live = count;
      // Nothing behind it belongs to the block, and what it has not written is no number.
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(now.memory.data(), now.memory.size());
#endif
      now.memory.assign(shared_bytes + 1024 + 64, 0xff);
      now.shared =
          reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(now.memory.data()) + 1023) & ~uintptr_t(1023));
      now.shared_bytes = shared_bytes;
#if defined(__SANITIZE_ADDRESS__)
      size_t tail = now.memory.data() + now.memory.size() - (now.shared + shared_bytes);
      __asan_poison_memory_region(now.shared + shared_bytes, tail);
#endif
      now.warps.assign((count + 31) / 32, Warp{});
      for (auto& barrier : now.barriers) barrier = Barrier{};
      if (now.threads.size() != count) {
        now.threads.clear();
        now.threads.resize(count);
      }
      for (uint32_t i = 0; i < count; i++) {
        Thread& thread = now.threads[i];
        auto stack = std::move(thread.stack);
        thread = Thread{};
        thread.stack = std::move(stack);
        thread.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
        thread.linear = i;
        thread.lane = i % 32;
        thread.warp = i / 32;
        thread.block = &now;
        now.warps[i / 32].live++;
        prepare(thread);
      }
    }
    launch.epoch = ++last_epoch;
    run_cluster(launch, order);
    if (launch.finish) launch.finish();
  }
#if defined(__SANITIZE_ADDRESS__)
  for (auto& block : launch.cluster) __asan_unpoison_memory_region(block->memory.data(), block->memory.size());
#endif
  launch_now = before;
}

// The kernels by name, as the driver finds them.
struct Kernel {
  const char* name;
  uint32_t cluster;
  std::function<void(void**)> call;
  bool (*settle)();
  std::vector<size_t> parameter_bytes;
};

inline std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

inline const Kernel* find(const std::string& name) {
  auto found = kernels().find(name);
  return found == kernels().end() ? nullptr : &found->second;
}

template <class... A, size_t... I>
std::function<void(void**)> unpack(void (*kernel)(A...), std::index_sequence<I...>) {
  return [kernel](void** parameters) {
    (void)parameters;
    kernel(*static_cast<std::remove_const_t<std::remove_reference_t<A>>*>(parameters[I])...);
  };
}

template <class... A>
bool add(const char* name, uint32_t cluster, void (*kernel)(A...), bool (*settle)() = nullptr) {
  kernels()[name] = Kernel{name, cluster, unpack(kernel, std::index_sequence_for<A...>{}), settle, {sizeof(A)...}};
  return true;
}

// Runs a kernel with parameters as cuLaunchKernel takes them.
inline void run(const Kernel& kernel, Dim3 grid, Dim3 block, size_t shared_bytes, void** parameters,
                Order order = Order::Forward, uint64_t seed = 0) {
  launch(
      kernel.name, grid, block, shared_bytes, kernel.cluster, order, seed, [&] { kernel.call(parameters); },
      kernel.settle);
}

}  // namespace host

#define HOST_KERNEL(name) static bool name##_is_known [[maybe_unused]] = host::add(#name, 1, &name);
#define HOST_CLUSTER_KERNEL(name, cluster, settle) \
  static bool name##_is_known [[maybe_unused]] = host::add(#name, cluster, &name, settle);

#define threadIdx (host::self().index)
#define blockIdx (host::block().index)
#define blockDim (host::launch_now->block)
#define gridDim (host::launch_now->grid)
#define DYNAMIC_SHARED(name) unsigned char* name = host::block().shared

static inline void __syncthreads() { host::sync(0, 0); }
static inline void __syncwarp(uint32_t = 0xffffffffu) {
  host::collective<int, int>(0, [](const int* const*, int**) {}, "__syncwarp");
}

namespace host {
template <class T>
struct ShuffleIn {
  T value;
  int lane;
};
template <class T>
inline T shuffle(T value, int lane, const char* what) {
  return collective<T, ShuffleIn<T>>(
      {value, lane},
      [](const ShuffleIn<T>* const* in, T** out) {
        for (int i = 0; i < 32; i++) *out[i] = in[in[i]->lane & 31]->value;
      },
      what);
}
}  // namespace host

template <class T>
static inline T __shfl_xor_sync(uint32_t, T value, int mask) {
  return host::shuffle(value, int(host::self().lane) ^ mask, "__shfl_xor_sync");
}
template <class T>
static inline T __shfl_sync(uint32_t, T value, int lane) {
  return host::shuffle(value, lane, "__shfl_sync");
}
template <class T>
static inline T __shfl_down_sync(uint32_t, T value, int delta) {
  int lane = int(host::self().lane) + delta;
  return host::shuffle(value, lane < 32 ? lane : int(host::self().lane), "__shfl_down_sync");
}
static inline float __uint_as_float(uint32_t x) {
  float f;
  memcpy(&f, &x, 4);
  return f;
}
static inline uint32_t __float_as_uint(float f) {
  uint32_t x;
  memcpy(&x, &f, 4);
  return x;
}
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
static inline float exp2_approximate(float x) { return std::exp2(x); }
template <class T>
static inline T __ldg(const T* at) {
  return *at;
}
using std::max;
using std::min;

#if defined(__x86_64__) && defined(HOST_SHIM_MAIN)
// Saves the six registers that a call keeps, and the stack; goes on where `to` was saved.
asm(".text\n.globl host_switch_stack\n.type host_switch_stack,@function\nhost_switch_stack:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
#endif
