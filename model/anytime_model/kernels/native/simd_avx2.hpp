// AVX2 with FMA: registers of 8 floats, 16 of them.
#pragma once

#include <immintrin.h>

#include "types.hpp"

namespace anytime {
namespace {

struct Simd {
  using V = __m256;
  using Mask = __m256i;
  static constexpr int lanes = 8;
  static constexpr int most_vectors = 3;
  // Pixels of a tile by its vectors: accumulators, one weight row and an input fill 16 registers.
  static constexpr int tile_pixels(int vectors) {
    return vectors == 1 ? 8 : vectors == 2 ? 6 : vectors == 3 ? 4 : 3;
  }
  // The same for groups of single channels.
  static constexpr int dot_pixels(int channels) { return channels <= 2 ? 4 : channels <= 4 ? 3 : 1; }

  static ANYTIME_INLINE Mask first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static ANYTIME_INLINE V zero() { return _mm256_setzero_ps(); }
  static ANYTIME_INLINE V all(float x) { return _mm256_set1_ps(x); }
  static ANYTIME_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
  static ANYTIME_INLINE V load(const float* p, Mask m) { return _mm256_maskload_ps(p, m); }
  static ANYTIME_INLINE void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static ANYTIME_INLINE void store(float* p, V v, Mask m) { _mm256_maskstore_ps(p, m, v); }
  static ANYTIME_INLINE V add(V a, V b) { return _mm256_add_ps(a, b); }
  static ANYTIME_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
  static ANYTIME_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static ANYTIME_INLINE float sum(V v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
};

}  // namespace
}  // namespace anytime
