// AVX-512: registers of 16 floats, 32 of them.
#pragma once

#include <immintrin.h>

#include "types.hpp"

namespace anytime {
namespace {

struct Simd {
  using V = __m512;
  using Mask = __mmask16;
  static constexpr int lanes = 16;
  static constexpr int most_vectors = 4;
  // Pixels of a tile by its vectors: accumulators, one weight row and the inputs fill 32 registers.
  static constexpr int tile_pixels(int vectors) {
    return vectors == 1 ? 12 : vectors == 2 ? 12 : vectors == 3 ? 8 : 6;
  }
  // The same for groups of single channels.
  static constexpr int dot_pixels(int channels) { return channels <= 2 ? 8 : channels <= 4 ? 4 : 2; }

  static ANYTIME_INLINE Mask first(int n) { return Mask((1u << n) - 1); }
  static ANYTIME_INLINE V zero() { return _mm512_setzero_ps(); }
  static ANYTIME_INLINE V all(float x) { return _mm512_set1_ps(x); }
  static ANYTIME_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
  static ANYTIME_INLINE V load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static ANYTIME_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static ANYTIME_INLINE void store(float* p, V v, Mask m) { _mm512_mask_storeu_ps(p, m, v); }
  static ANYTIME_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
  static ANYTIME_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
  static ANYTIME_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static ANYTIME_INLINE float sum(V v) { return _mm512_reduce_add_ps(v); }
};

}  // namespace
}  // namespace anytime
