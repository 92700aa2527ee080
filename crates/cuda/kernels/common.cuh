// Number types, conversions and reductions that all kernels share. Compiles as CUDA and, with the shim, as host C++.
#pragma once
#ifdef __CUDACC__
#include <stdint.h>
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define HOST_KERNEL(name)
#define HOST_CLUSTER_KERNEL(name, cluster, settle)
#define CLUSTER(n) __cluster_dims__(n, 1, 1)
#else
#include "host/shim.h"
#endif

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void

// Weights and activations. `bits` is how they lie in memory.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
typedef float f32;

#ifdef __CUDACC__
DEVICE float to_f32(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
DEVICE float to_f32(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
DEVICE uint16_t bf16_bits(float x) {
  uint16_t y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
DEVICE uint16_t f16_bits(float x) {
  uint16_t y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
DEVICE uint32_t pack_bf16(float a, float b) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(b), "f"(a));
  return y;
}
DEVICE uint32_t pack_f16(float a, float b) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(b), "f"(a));
  return y;
}
DEVICE float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
DEVICE float to_f32(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
DEVICE float to_f32(f16 x) {
  _Float16 y;
  memcpy(&y, &x.bits, 2);
  return (float)y;
}
DEVICE uint16_t bf16_bits(float x) {
  uint32_t u = __float_as_uint(x);
  return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
DEVICE uint16_t f16_bits(float x) {
  _Float16 y = (_Float16)x;
  uint16_t bits;
  memcpy(&bits, &y, 2);
  return bits;
}
DEVICE uint32_t pack_bf16(float a, float b) { return bf16_bits(a) | (uint32_t)bf16_bits(b) << 16; }
DEVICE uint32_t pack_f16(float a, float b) { return f16_bits(a) | (uint32_t)f16_bits(b) << 16; }
#endif
DEVICE float to_f32(f32 x) { return x; }

// The address of a byte in the 32-bit window of shared memory, which the instructions for it take.
#ifdef __CUDACC__
DEVICE uint32_t shared_address(const void* pointer) { return (uint32_t)__cvta_generic_to_shared(pointer); }
#else
using host::shared_address;
#endif

template <class T>
DEVICE T from_f32(float x);
template <>
DEVICE bf16 from_f32<bf16>(float x) {
  bf16 y;
  y.bits = bf16_bits(x);
  return y;
}
template <>
DEVICE f16 from_f32<f16>(float x) {
  f16 y;
  y.bits = f16_bits(x);
  return y;
}
template <>
DEVICE f32 from_f32<f32>(float x) {
  return x;
}

// Two neighbours in one word: the first in the low half.
template <class T>
DEVICE uint32_t pack2(float a, float b);
template <>
DEVICE uint32_t pack2<bf16>(float a, float b) {
  return pack_bf16(a, b);
}
template <>
DEVICE uint32_t pack2<f16>(float a, float b) {
  return pack_f16(a, b);
}
template <class T>
DEVICE float low(uint32_t pair) {
  T x;
  x.bits = (uint16_t)pair;
  return to_f32(x);
}
template <class T>
DEVICE float high(uint32_t pair) {
  T x;
  x.bits = (uint16_t)(pair >> 16);
  return to_f32(x);
}

// Four neighbours, 8 or 16 bytes at once.
template <class T>
DEVICE float4 load4(const T* at) {
  uint2 pairs = *(const uint2*)at;
  return make_float4(low<T>(pairs.x), high<T>(pairs.x), low<T>(pairs.y), high<T>(pairs.y));
}
template <>
DEVICE float4 load4<f32>(const f32* at) {
  return *(const float4*)at;
}
template <class T>
DEVICE void store4(T* at, float4 x) {
  *(uint2*)at = make_uint2(pack2<T>(x.x, x.y), pack2<T>(x.z, x.w));
}
template <>
DEVICE void store4<f32>(f32* at, float4 x) {
  *(float4*)at = x;
}

// The same sum, in the same order, on every lane.
DEVICE float warp_sum(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x += __shfl_xor_sync(0xffffffffu, x, mask);
  return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}

// The erf form of GELU: x P(x) = max(x, 0) - |x| P(-|x|), where P is the normal distribution and log2 P(-a) a
// polynomial of a. Its absolute error is below 1e-7 of max(|x|, 1), the relative one below 1e-6 about 0 and below 1e-5
// to x = -3; erff takes twice the instructions and is no better, as 1 + erf(x) cancels for negative x.
DEVICE float gelu(float x) {
  float a = fabsf(x), log2_tail = -6.628006150e-7f;
  log2_tail = fmaf(log2_tail, a, 1.155065542e-5f);
  log2_tail = fmaf(log2_tail, a, -4.487937614e-5f);
  log2_tail = fmaf(log2_tail, a, -5.020485727e-4f);
  log2_tail = fmaf(log2_tail, a, 7.575211125e-3f);
  log2_tail = fmaf(log2_tail, a, -5.287835800e-2f);
  log2_tail = fmaf(log2_tail, a, -4.590711492e-1f);
  log2_tail = fmaf(log2_tail, a, -1.151122632f);
  log2_tail = fmaf(log2_tail, a, -1.f);
  return fmaf(-a, exp2_approximate(log2_tail), fmaxf(x, 0.f));
}

// The parameter of the TMA kernels: CUtensorMap, which cuTensorMapEncodeTiled fills.
struct alignas(64) TensorMap {
  uint64_t opaque[16];
};
