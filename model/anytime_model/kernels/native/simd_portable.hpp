// Any CPU: registers of 4 floats as GCC and Clang make them (SSE2 on x86-64, NEON on ARM).
#pragma once

#include "types.hpp"

namespace anytime {
namespace {

struct FourFloats {
  typedef float V __attribute__((vector_size(16)));
  using Mask = int;  // how many lanes, from the first
  static constexpr int lanes = 4;
  static constexpr int most_vectors = 4;
  static constexpr int tile_pixels(int vectors) {
    return vectors == 1 ? 8 : vectors == 2 ? 4 : vectors == 3 ? 3 : 2;
  }

  static ANYTIME_INLINE Mask first(int n) { return n; }
  static ANYTIME_INLINE V zero() { return V{0, 0, 0, 0}; }
  static ANYTIME_INLINE V all(float x) { return V{x, x, x, x}; }
  static ANYTIME_INLINE V load(const float* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static ANYTIME_INLINE V load(const float* p, Mask m) {
    V v = zero();
    __builtin_memcpy(&v, p, sizeof(float) * m);
    return v;
  }
  static ANYTIME_INLINE void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof v); }
  static ANYTIME_INLINE void store(float* p, V v, Mask m) {
    __builtin_memcpy(p, &v, sizeof(float) * m);
  }
  static ANYTIME_INLINE V add(V a, V b) { return a + b; }
  static ANYTIME_INLINE V max(V a, V b) { return a > b ? a : b; }
  static ANYTIME_INLINE V min(V a, V b) { return a < b ? a : b; }
  static ANYTIME_INLINE V fma(V a, V b, V c) { return a * b + c; }
  // Lane i of the result is the sum over the lanes of v[i].
  static ANYTIME_INLINE V sums(const V (&v)[lanes]) {
    V total;
    for (int i = 0; i < lanes; i++) total[i] = (v[i][0] + v[i][1]) + (v[i][2] + v[i][3]);
    return total;
  }
};

}  // namespace
}  // namespace anytime
