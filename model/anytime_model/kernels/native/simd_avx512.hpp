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

  static ANYTIME_INLINE Mask first(int n) { return Mask((1u << n) - 1); }
  static ANYTIME_INLINE V zero() { return _mm512_setzero_ps(); }
  static ANYTIME_INLINE V all(float x) { return _mm512_set1_ps(x); }
  static ANYTIME_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
  static ANYTIME_INLINE V load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static ANYTIME_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static ANYTIME_INLINE void store(float* p, V v, Mask m) { _mm512_mask_storeu_ps(p, m, v); }
  static ANYTIME_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
  static ANYTIME_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
  static ANYTIME_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }
  static ANYTIME_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  // Lane i of the result is the sum over the lanes of v[i].
  static ANYTIME_INLINE V sums(const V (&v)[lanes]) { return sums(v, add); }
  template <class Add>  // of registers, whatever they hold
  static ANYTIME_INLINE V sums(const V (&v)[lanes], const Add& add) {
    V quad[4];  // four sums in each quarter, of that quarter's lanes
    ANYTIME_UNROLL
    for (int i = 0; i < 4; i++)
      quad[i] = fours(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3], add);
    const V low = halves(quad[0], quad[1], add), high = halves(quad[2], quad[3], add);
    return add(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
  }

 private:
  template <class Add>
  static ANYTIME_INLINE V fours(V a, V b, V c, V d, const Add& add) {
    const V ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const V cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    return add(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
               _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  template <class Add>
  static ANYTIME_INLINE V halves(V a, V b, const Add& add) {
    return add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
};

}  // namespace
}  // namespace anytime
