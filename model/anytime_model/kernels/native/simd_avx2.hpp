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
  static ANYTIME_INLINE V min(V a, V b) { return _mm256_min_ps(a, b); }
  static ANYTIME_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  // Lane i of the result is the sum over the lanes of v[i].
  static ANYTIME_INLINE V sums(const V (&v)[lanes]) { return sums(v, add); }
  template <class Add>  // of registers, whatever they hold
  static ANYTIME_INLINE V sums(const V (&v)[lanes], const Add& add) {
    const V a = fours(v[0], v[1], v[2], v[3], add), b = fours(v[4], v[5], v[6], v[7], add);
    return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }

 private:
  // Four sums in each half, of that half's lanes.
  template <class Add>
  static ANYTIME_INLINE V fours(V a, V b, V c, V d, const Add& add) {
    const V ab = add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const V cd = add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256d x = _mm256_castps_pd(ab), y = _mm256_castps_pd(cd);
    return add(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)),
               _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
  }
};

}  // namespace
}  // namespace anytime
