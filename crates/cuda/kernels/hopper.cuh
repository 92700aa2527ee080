// The instructions of compute capability 9.0 that the GEMM needs: mbarriers, clusters, TMA copies, wgmma, and register
// reallocation. Each function is one instruction on the device and has a model on the host (host/async_model.h,
// host/wgmma_model.h).
//
// Addresses of shared memory are those that `shared_address` (common.cuh) returns.
#pragma once
#include "common.cuh"
#ifndef __CUDACC__
#include "host/async_model.h"
#include "host/wgmma_model.h"
#endif

// For debugging: an mbarrier wait that takes longer than this traps, so the launch fails instead of hanging. At most
// 4,000,000,000; 0 is no limit.
#ifndef HOPPER_WATCHDOG_NANOSECONDS
#define HOPPER_WATCHDOG_NANOSECONDS 0
#endif

namespace hopper {

// The wgmma descriptor of a K-major matrix of 16-bit numbers with 128-byte rows and the 128-byte swizzle. 8 rows take
// 1024 bytes. `address` is a multiple of 1024; `kDescriptorStep` added to the descriptor moves on by 16 numbers along
// K.
DEVICE uint64_t matrix_descriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = 1ull << 62, kStride = uint64_t(1024 >> 4) << 32, kLeading = 1ull << 16;
  return kSwizzle128 | kStride | kLeading | (address & 0x3ffff) >> 4;
}
constexpr uint64_t kDescriptorStep = 32 >> 4;

#ifdef __CUDACC__

// True in one lane of the warp, the same lane each time.
DEVICE bool elect_one() {
  uint32_t elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
  return elected;
}

// ---- mbarriers ----

DEVICE void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes this thread's initializations visible to TMA and, after a cluster barrier, to the other blocks of the cluster.
DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives at the barrier with the same address in the block of that rank.
DEVICE void mbarrier_arrive_cluster(uint32_t barrier, int rank) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
// Arrives, and adds to the bytes that TMA must write before the phase completes.
DEVICE void mbarrier_arrive_expect_tx(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
DEVICE bool mbarrier_try_wait(uint32_t barrier, uint32_t parity) {
  uint32_t complete;
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(complete)
               : "r"(barrier), "r"(parity)
               : "memory");
  return complete;
}
// Low half of the clock.
DEVICE uint32_t nanoseconds() {
  uint32_t now;
  asm volatile("mov.u32 %0, %%globaltimer_lo;" : "=r"(now));
  return now;
}
// Waits until the phase of that parity is complete. On a new barrier, parity 1 stands for a phase before the first one,
// which is complete.
DEVICE void mbarrier_wait(uint32_t barrier, uint32_t parity) {
#if HOPPER_WATCHDOG_NANOSECONDS
  if (mbarrier_try_wait(barrier, parity)) return;
  uint32_t start = nanoseconds();
  while (!mbarrier_try_wait(barrier, parity)) {
    // An invalid write ends the launch as a trap does, but a trap makes the compiler spill registers.
    if (nanoseconds() - start > HOPPER_WATCHDOG_NANOSECONDS)
      asm volatile("st.global.u32 [%0], %1;" ::"l"(0ull), "r"(0));
  }
#else
  while (!mbarrier_try_wait(barrier, parity)) {}
#endif
}

// ---- Clusters ----

DEVICE int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return (int)rank;
}
// All threads of the cluster must call both; each warp must have converged.
DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// ---- TMA ----

DEVICE void prefetch_tensor_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// Loads the box that begins at (row, column); numbers outside the matrix are zero. The bytes of the whole box count at
// `barrier`.
DEVICE void tma_load(uint32_t to, const TensorMap* map, int row, int column, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
// Loads the box into every block of the cluster whose bit is set in `ranks`, at the same address, and counts at the
// barrier with the same address there.
DEVICE void tma_load_multicast(uint32_t to, const TensorMap* map, int row, int column, uint32_t barrier, int ranks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"((uint16_t)ranks)
      : "memory");
}
// Stores the box that begins at (row, column), except what lies outside the matrix.
DEVICE void tma_store(const TensorMap* map, int row, int column, uint32_t from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(column),
               "r"(row), "r"(from)
               : "memory");
}
DEVICE void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until all but the newest `Left` groups of this thread's stores have read shared memory.
template <int Left> DEVICE void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Left) : "memory");
}
// Waits until they have written global memory, too.
template <int Left> DEVICE void tma_store_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Left) : "memory");
}
// Makes this thread's writes to shared memory visible to TMA.
DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Writes four 8 x 8 matrices of 16-bit numbers. Lane l passes the address of row l % 8 of matrix l / 8, and holds the
// numbers (l / 4, 2 (l % 4)) and (l / 4, 2 (l % 4) + 1) of each matrix.
DEVICE void stmatrix_x4(uint32_t row_address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared::cta.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

// ---- Register reallocation, by whole warpgroups ----

template <int Count> DEVICE void setmaxnreg_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count)); }
// Waits until other warpgroups have released enough registers.
template <int Count> DEVICE void setmaxnreg_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count)); }

// ---- wgmma ----

// Required before the first wgmma, and after every other access to the accumulators.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define HOPPER_ACCUMULATORS(d)                                                                                        \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),         \
      "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),          \
      "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),         \
      "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),         \
      "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),         \
      "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),         \
      "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),         \
      "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), "+f"(d[64]),         \
      "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), "+f"(d[72]),         \
      "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]),         \
      "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]),         \
      "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]),         \
      "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), "+f"(d[104]),    \
      "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), \
      "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), \
      "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
#define HOPPER_WGMMA(type)                                                                             \
  asm volatile(                                                                                        \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                                    \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                     \
      " {"                                                                                             \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                         \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "               \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "               \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "               \
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "               \
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "               \
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "   \
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127" \
      "}, %128, %129, p, 1, 1, 0, 0;\n}"                                                               \
      : HOPPER_ACCUMULATORS(accumulators)                                                              \
      : "l"(a), "l"(b), "r"((int)accumulate))

// Waits until all but the newest `Left` groups are complete. Accumulators may be read only after `wgmma_wait_all`,
// which the compiler knows to change them.
template <int Left> DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
DEVICE void wgmma_wait_all(float (&accumulators)[128]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : HOPPER_ACCUMULATORS(accumulators)::"memory");
}

// Adds a b^T to the accumulators of a warpgroup, or overwrites them unless `accumulate`: a is 64 x 16 and b 256 x 16,
// in shared memory. Warp w has rows 16 w to 16 w + 15. Lane l holds in accumulators[4 j] and [4 j + 1] the columns 8 j
// + 2 (l % 4) and 8 j + 2 (l % 4) + 1 of row l / 4, and in [4 j + 2] and [4 j + 3] those of row l / 4 + 8.
template <class T> DEVICE void wgmma(float (&accumulators)[128], uint64_t a, uint64_t b, bool accumulate);
template <> DEVICE void wgmma<bf16>(float (&accumulators)[128], uint64_t a, uint64_t b, bool accumulate) {
  HOPPER_WGMMA("bf16");
}
template <> DEVICE void wgmma<f16>(float (&accumulators)[128], uint64_t a, uint64_t b, bool accumulate) {
  HOPPER_WGMMA("f16");
}

#undef HOPPER_WGMMA
#undef HOPPER_ACCUMULATORS

#else  // On the host.

using host_async::cluster_arrive;
using host_async::cluster_wait;
using host_async::fence_proxy_async;
using host_async::mbarrier_arrive;
using host_async::mbarrier_arrive_cluster;
using host_async::mbarrier_arrive_expect_tx;
using host_async::mbarrier_init;
using host_async::mbarrier_init_fence;
using host_async::mbarrier_wait;
using host_async::stmatrix_x4;
using host_async::tma_load_multicast;
using host_async::tma_store;
using host_async::tma_store_commit;
using host_wgmma::setmaxnreg_dec;
using host_wgmma::setmaxnreg_inc;
using host_wgmma::wgmma;
using host_wgmma::wgmma_commit;
using host_wgmma::wgmma_fence;
using host_wgmma::wgmma_wait;

inline int cluster_rank() { return int(host::block().rank); }
inline bool elect_one() {
  __syncwarp();
  return host::self().lane == 0;
}
inline void prefetch_tensor_map(const TensorMap* map) { host_async::tensor_map(map); }
inline void tma_load(uint32_t to, const TensorMap* map, int row, int column, uint32_t barrier) {
  tma_load_multicast(to, map, row, column, barrier, 1 << cluster_rank());
}
template <int Left> inline void tma_store_wait_read() { host_async::tma_store_wait(Left); }
template <int Left> inline void tma_store_wait() { host_async::tma_store_wait(Left); }
inline void wgmma_wait_all(float (&)[128]) { wgmma_wait<0>(); }

#endif

DEVICE void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

}  // namespace hopper
