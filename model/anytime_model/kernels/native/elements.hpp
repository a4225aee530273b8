// The three kinds of numbers that activations are stored as, and how each is multiplied.
//
// An arithmetic `A` names its Element (of activations), Stored (of weights) and Sum, its depth (input
// channels that one multiply-add takes), how to load weights and broadcast inputs, and what becomes of
// sums. Those of floats and bf16 are floats.
//
// Bytes stand for numbers: (byte - zero) * step, with a step and a zero for each map that the kernels
// never see. Weights are signed bytes with a step for each output channel, and sums are exact 32-bit
// integers. What follows a sum is computed in floats that count steps of the map that is written, so
// that its last act is rounding (to nearest, ties to even) to a byte from 0 to 255, which is the ReLU
// of a map whose zero is 0, too. A sum times its channel's `scale` plus `bias` is in those units, and
// a residual or a term times its own. Zeros are part of `bias`. Multiply-adds are fused on every CPU,
// so that all instruction sets agree bit for bit; the files are compiled without contraction.
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

using u8 = uint8_t;

ANYTIME_INLINE float to_float(u8 x) { return x; }
template <>
ANYTIME_INLINE u8 from_float<u8>(float x) {  // to nearest, ties to even
  x = x > 0 ? x : 0;
  x = (x < 255 ? x : 255) + 8388608.0f;  // 2^23: what is left of a fraction is rounded away
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return u8(bits);
}
template <>
ANYTIME_INLINE int8_t from_float<int8_t>(float x) { return int8_t(x); }  // a weight, whole already

template <class E>
constexpr bool kBytes = sizeof(E) == 1;

ANYTIME_INLINE Simd::V load(const float* p) { return Simd::load(p); }
ANYTIME_INLINE Simd::V load(const float* p, Simd::Mask m) { return Simd::load(p, m); }
ANYTIME_INLINE void store(float* p, Simd::V v) { Simd::store(p, v); }
ANYTIME_INLINE void store(float* p, Simd::V v, Simd::Mask m) { Simd::store(p, v, m); }

ANYTIME_INLINE Simd::V activate(Activation kind, Simd::V v) {
  if (kind == Activation::none) return v;
  v = Simd::max(v, Simd::zero());
  return kind == Activation::relu6 ? Simd::min(v, Simd::all(6)) : v;
}

// The same of what will be stored as O: rounding to a byte is a ReLU already.
template <class O>
ANYTIME_INLINE Simd::V activate_as(Activation kind, Simd::V v) {
  return kBytes<O> ? v : activate(kind, v);
}

template <class O>
ANYTIME_INLINE Simd::V add_residual(Simd::V sum, Simd::V other, float scale) {
  return kBytes<O> ? Simd::fma(other, Simd::all(scale), sum) : Simd::add(sum, other);
}

// body(k) for every whole register of a pixel's channels, from channel k on, and body(k, mask) for
// those that are left over.
template <class Body>
ANYTIME_INLINE void each_register(int channels, const Body& body) {
  int k = 0;
  for (; k + Simd::lanes <= channels; k += Simd::lanes) body(k);
  if (k < channels) body(k, Simd::first(channels - k));
}

// What sums of floats begin and end with.
struct FloatSums {
  using V = Simd::V;
  using Sum = V;
  static ANYTIME_INLINE Sum all(int x) { return Simd::all(float(x)); }
  static ANYTIME_INLINE Sum start(V bias) { return bias; }
  static ANYTIME_INLINE V end(Sum sum, V, V) { return sum; }
  static ANYTIME_INLINE V end_dots(const Sum (&sums)[Simd::lanes], V, V bias) {
    return Simd::add(Simd::sums(sums), bias);
  }
};

struct Float : FloatSums {
  using Element = float;
  using Stored = float;
  using Weight = Simd::V;
  static constexpr int depth = 1;
  static ANYTIME_INLINE Weight weight(const float* p) { return Simd::load(p); }
  static ANYTIME_INLINE Weight some(const float* p, int n) { return Simd::load(p, Simd::first(n)); }
  static ANYTIME_INLINE Weight broadcast(const float* p) { return Simd::all(*p); }
  static ANYTIME_INLINE Sum multiply_add(Weight x, Weight w, Sum sum) {
    return Simd::fma(x, w, sum);
  }
};

}  // namespace
}  // namespace anytime
