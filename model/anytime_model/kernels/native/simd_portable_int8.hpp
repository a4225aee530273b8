// Any CPU: as simd_portable.hpp, and fours of bytes. Multiply-adds of floats are fused, if need be by
// the C library, so that the results are those of the other instruction sets bit for bit.
#pragma once

#include "simd_portable.hpp"

namespace anytime {
namespace {

struct Simd : FourFloats {
  static ANYTIME_INLINE V fma(V a, V b, V c) {
    for (int i = 0; i < lanes; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
  }
};

}  // namespace
}  // namespace anytime

#include "elements.hpp"

namespace anytime {
namespace {

ANYTIME_INLINE Simd::V load(const u8* p, Simd::Mask m) {
  Simd::V v = Simd::zero();
  for (int i = 0; i < m; i++) v[i] = to_float(p[i]);
  return v;
}
ANYTIME_INLINE Simd::V load(const u8* p) { return load(p, Simd::lanes); }
ANYTIME_INLINE void store(u8* p, Simd::V v, Simd::Mask m) {
  for (int i = 0; i < m; i++) p[i] = from_float<u8>(v[i]);
}
ANYTIME_INLINE void store(u8* p, Simd::V v) { store(p, v, Simd::lanes); }

struct Bytes {
  using V = Simd::V;
  using Element = u8;
  using Stored = int8_t;
  static constexpr int depth = 4;
  struct Weight {
    u8 byte[Simd::lanes * depth];
  };
  typedef int32_t Sum __attribute__((vector_size(16)));
  static ANYTIME_INLINE Weight weight(const void* p) { return some(p, sizeof(Weight)); }
  static ANYTIME_INLINE Weight some(const void* p, int n) {
    Weight w{};
    __builtin_memcpy(w.byte, p, uint64_t(n));
    return w;
  }
  static ANYTIME_INLINE Weight broadcast(const void* p) {
    Weight w;
    for (int i = 0; i < Simd::lanes; i++) __builtin_memcpy(w.byte + i * depth, p, depth);
    return w;
  }
  static ANYTIME_INLINE Sum multiply_add(Weight x, Weight w, Sum sum) {
    for (int i = 0; i < Simd::lanes; i++)
      for (int d = 0; d < depth; d++)
        sum[i] += int32_t(x.byte[i * depth + d]) * int32_t(int8_t(w.byte[i * depth + d]));
    return sum;
  }
  static ANYTIME_INLINE Sum all(int x) { return Sum{x, x, x, x}; }
  static ANYTIME_INLINE Sum start(V) { return all(0); }
  static ANYTIME_INLINE V end(Sum sum, V scale, V bias) {
    V value;
    for (int i = 0; i < Simd::lanes; i++) value[i] = float(sum[i]);
    return Simd::fma(value, scale, bias);
  }
  static ANYTIME_INLINE V end_dots(const Sum (&sums)[Simd::lanes], V scale, V bias) {
    Sum total;
    for (int i = 0; i < Simd::lanes; i++)
      total[i] = (sums[i][0] + sums[i][1]) + (sums[i][2] + sums[i][3]);
    return end(total, scale, bias);
  }
};

}  // namespace
}  // namespace anytime
