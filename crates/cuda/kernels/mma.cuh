// Tensor-core products on sm_80 and later (mma.sync), and the loads that feed them: cp.async and ldmatrix.
#pragma once
#include "common.cuh"

#ifndef __CUDACC__
#include <unordered_map>

namespace host {

// When an asynchronous copy happens: at once, or no earlier than the wait for its group. A kernel that waits correctly
// gives the same bits in both. A late copy first overwrites its destination with 0xff, as it may land at any time.
enum class CopyTime { Early, Late };
inline thread_local CopyTime copy_time = CopyTime::Late;

struct Copy {
  uint32_t to;
  const void* from;
  bool valid;
};

// The copies of one thread that have not happened, and where each committed group of them ends.
struct CopyQueue {
  std::vector<Copy> copies;
  std::vector<size_t> groups;
};

inline thread_local std::unordered_map<const Thread*, CopyQueue> copy_queues;
// The cluster of blocks whose threads these are.
inline thread_local uint64_t copy_epoch = 0;
// Rows of ldmatrix, beyond the first, that wait for a bank which another row of the same matrix uses.
inline thread_local uint64_t bank_conflicts = 0;

inline size_t pending_copies() {
  size_t count = 0;
  for (auto& queue : copy_queues) count += queue.second.copies.size();
  return count;
}

// The queue of the thread that runs.
inline CopyQueue& copy_queue() {
  if (copy_epoch != launch_now->epoch) {
    if (pending_copies()) fail("a block has ended before its asynchronous copies");
    copy_queues.clear();
    copy_epoch = launch_now->epoch;
  }
  return copy_queues[&self()];
}

inline void perform(const Copy& copy) {
  unsigned char* to = shared_bytes(block(), copy.to, 16, 16);
  if (copy.valid) memcpy(to, copy.from, 16);
  else memset(to, 0, 16);
}

struct Matrices { uint32_t words[4]; };

// The eight rows of each of four 8x8 matrices of 16-bit numbers. The lanes 8 i to 8 i + 7 hold the row addresses of
// matrix i.
inline void read_rows(const uint32_t* const* in, uint16_t (&values)[4][8][8]) {
  for (int i = 0; i < 4; i++) {
    uint32_t banks_used = 0;
    for (int row = 0; row < 8; row++) {
      uint32_t at = *in[8 * i + row], bank = 1u << at / 16 % 8;
      memcpy(values[i][row], shared_bytes(block(), at, 16, 16), 16);
      if (banks_used & bank) bank_conflicts++;
      banks_used |= bank;
    }
  }
}

template <class T> inline float number(uint32_t pair, int index) { return index ? high<T>(pair) : low<T>(pair); }

struct MmaIn {
  uint32_t a[4], b[2];
  float c[4];
};
struct MmaOut { float d[4]; };

// The products of one output are added in the order of k. Most of the time of a test is spent here.
__attribute__((no_sanitize("address", "undefined"), optimize("O3"))) inline void multiply_add(
    float (&d)[16][8], const float (&a)[16][16], const float (&b)[16][8]) {
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < 16; k++)
      for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
}

// d = a b + c with the fragment layouts of mma.m16n8k16.
template <class T> inline void mma(const MmaIn* const* in, MmaOut** out) {
  float a[16][16], b[16][8], d[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const MmaIn& part = *in[lane];
    int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 2; i++) {
      a[row][column + i] = number<T>(part.a[0], i);
      a[row + 8][column + i] = number<T>(part.a[1], i);
      a[row][column + 8 + i] = number<T>(part.a[2], i);
      a[row + 8][column + 8 + i] = number<T>(part.a[3], i);
      b[column + i][row] = number<T>(part.b[0], i);
      b[column + 8 + i][row] = number<T>(part.b[1], i);
      d[row][column + i] = part.c[i];
      d[row + 8][column + i] = part.c[2 + i];
    }
  }
  multiply_add(d, a, b);
  for (int lane = 0; lane < 32; lane++)
    for (int i = 0; i < 4; i++) out[lane]->d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

}  // namespace host
#endif

// Starts to copy 16 bytes from global to shared memory, both aligned to 16 bytes. If not valid, the destination becomes
// zero and nothing is read.
DEVICE void copy16_async(uint32_t to, const void* from, bool valid) {
#ifdef __CUDACC__
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#else
  unsigned char* bytes = host::shared_bytes(host::block(), to, 16, 16);
  if (valid && (uintptr_t)from % 16) host::fail("cp.async: a global address is not a multiple of 16 bytes");
  if (host::copy_time == host::CopyTime::Early) return host::perform({to, from, valid});
  memset(bytes, 0xff, 16);
  host::copy_queue().copies.push_back({to, from, valid});
#endif
}

// Ends a group of this thread's copies. A group may be empty.
DEVICE void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  auto& queue = host::copy_queue();
  queue.groups.push_back(queue.copies.size());
#endif
}

// Waits for this thread's groups of copies, except for the newest N. Other threads see them after a barrier.
template <int N> DEVICE void wait_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  auto& queue = host::copy_queue();
  if (queue.groups.size() <= (size_t)N) return;
  size_t groups = queue.groups.size() - N, copies = queue.groups[groups - 1];
  for (size_t i = 0; i < copies; i++) host::perform(queue.copies[i]);
  queue.copies.erase(queue.copies.begin(), queue.copies.begin() + copies);
  queue.groups.erase(queue.groups.begin(), queue.groups.begin() + groups);
  for (auto& end : queue.groups) end -= copies;
#endif
}

// Four 8x8 matrices of 16-bit numbers. The lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i; a lane
// receives columns 2 (lane % 4) and the next of row lane / 4 of each.
DEVICE void load_matrices(uint32_t (&to)[4], uint32_t row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row));
#else
  using host::Matrices;
  Matrices part = host::collective<Matrices, uint32_t>(row, [](const uint32_t* const* in, Matrices** out) {
    uint16_t values[4][8][8];
    host::read_rows(in, values);
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 4; i++) memcpy(&out[lane]->words[i], &values[i][lane / 4][lane % 4 * 2], 4);
  }, "ldmatrix");
  memcpy(to, part.words, sizeof to);
#endif
}

// The same, each matrix transposed: a lane receives rows 2 (lane % 4) and the next of column lane / 4.
DEVICE void load_matrices_transposed(uint32_t (&to)[4], uint32_t row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row));
#else
  using host::Matrices;
  Matrices part = host::collective<Matrices, uint32_t>(row, [](const uint32_t* const* in, Matrices** out) {
    uint16_t values[4][8][8];
    host::read_rows(in, values);
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 4; i++)
        out[lane]->words[i] = values[i][lane % 4 * 2][lane / 4] | (uint32_t)values[i][lane % 4 * 2 + 1][lane / 4] << 16;
  }, "ldmatrix.trans");
  memcpy(to, part.words, sizeof to);
#endif
}

// d = a b + c: a is 16x16, b 16x8, of which a lane holds, with row = lane / 4 and column = 2 (lane % 4):
//   a[0], a[1]: columns `column` and the next of rows `row` and row + 8;  a[2], a[3]: the same of columns + 8
//   b0, b1: rows `column` and the next, and + 8, of column `row`
//   c, d [0], [1]: columns `column` and the next of row `row`;  [2], [3]: of row + 8
template <class T>
DEVICE void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4]);

#ifdef __CUDACC__
#define MMA_16x8x16(T, type)                                                                                           \
  template <>                                                                                                          \
  DEVICE void mma_16x8x16<T>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4]) {   \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "   \
        "{%10, %11, %12, %13};"                                                                                        \
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                                               \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));   \
  }
MMA_16x8x16(bf16, "bf16")
MMA_16x8x16(f16, "f16")
#undef MMA_16x8x16
#else
template <class T>
DEVICE void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4]) {
  host::MmaIn part{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  host::MmaOut sum = host::collective<host::MmaOut, host::MmaIn>(part, &host::mma<T>, "mma.sync");
  memcpy(d, sum.d, sizeof d);
}
#endif
