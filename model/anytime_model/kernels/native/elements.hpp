// The two kinds of numbers that activations are stored as, and how each is multiplied.
//
// An arithmetic `A` names its Element, its depth (input channels that one multiply-add takes), and
// how to load weights and broadcast inputs. Sums are always float.
#pragma once

#include "types.hpp"

namespace anytime {
namespace {

ANYTIME_INLINE float to_float(float x) { return x; }
ANYTIME_INLINE float to_float(bf16 x) {
  const uint32_t bits = uint32_t(x) << 16;
  float y;
  __builtin_memcpy(&y, &bits, 4);
  return y;
}

template <class E>
ANYTIME_INLINE E from_float(float x);
template <>
ANYTIME_INLINE float from_float<float>(float x) { return x; }
template <>
ANYTIME_INLINE bf16 from_float<bf16>(float x) {  // to nearest, ties to even
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return bf16((bits >> 16) | 0x40);  // a NaN stays one
  return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

ANYTIME_INLINE Simd::V load(const float* p) { return Simd::load(p); }
ANYTIME_INLINE Simd::V load(const float* p, Simd::Mask m) { return Simd::load(p, m); }
ANYTIME_INLINE void store(float* p, Simd::V v) { Simd::store(p, v); }
ANYTIME_INLINE void store(float* p, Simd::V v, Simd::Mask m) { Simd::store(p, v, m); }

ANYTIME_INLINE Simd::V activate(Activation kind, Simd::V v) {
  if (kind == Activation::none) return v;
  v = Simd::max(v, Simd::zero());
  return kind == Activation::relu6 ? Simd::min(v, Simd::all(6)) : v;
}

// body(k) for every whole register of a pixel's channels, from channel k on, and body(k, mask) for
// those that are left over.
template <class Body>
ANYTIME_INLINE void each_register(int channels, const Body& body) {
  int k = 0;
  for (; k + Simd::lanes <= channels; k += Simd::lanes) body(k);
  if (k < channels) body(k, Simd::first(channels - k));
}

struct Float {
  using Element = float;
  using Weight = Simd::V;
  static constexpr int depth = 1;
  static ANYTIME_INLINE Weight weight(const float* p) { return Simd::load(p); }
  static ANYTIME_INLINE Weight some(const float* p, int n) { return Simd::load(p, Simd::first(n)); }
  static ANYTIME_INLINE Weight broadcast(const float* p) { return Simd::all(*p); }
  static ANYTIME_INLINE Simd::V multiply_add(Weight x, Weight w, Simd::V sum) {
    return Simd::fma(x, w, sum);
  }
};

}  // namespace
}  // namespace anytime
