// AVX-512 with bfloat16: as simd_avx512.hpp, and pairs of bf16 that are multiplied and added to a
// float in one instruction.
#pragma once

#include "simd_avx512.hpp"

#include "elements.hpp"

namespace anytime {
namespace {

ANYTIME_INLINE __m512 widen(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
ANYTIME_INLINE Simd::V load(const bf16* p) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
ANYTIME_INLINE Simd::V load(const bf16* p, Simd::Mask m) {
  return widen(_mm256_maskz_loadu_epi16(m, p));
}
ANYTIME_INLINE void store(bf16* p, Simd::V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
}
ANYTIME_INLINE void store(bf16* p, Simd::V v, Simd::Mask m) {
  _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(v));
}

struct Brain : FloatSums {
  using Element = bf16;
  using Stored = bf16;
  using Weight = __m512bh;
  static constexpr int depth = 2;
  static ANYTIME_INLINE Weight weight(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static ANYTIME_INLINE Weight some(const bf16* p, int n) {
    return (__m512bh)_mm512_maskz_loadu_epi16(__mmask32((uint64_t(1) << n) - 1), p);
  }
  static ANYTIME_INLINE Weight broadcast(const bf16* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, 4);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static ANYTIME_INLINE Simd::V multiply_add(Weight x, Weight w, Sum sum) {
    return _mm512_dpbf16_ps(sum, x, w);
  }
};

}  // namespace
}  // namespace anytime
