// AVX2 with AVX-VNNI: as simd_avx2.hpp, and fours of bytes that are multiplied and added to an
// integer in one instruction.
#pragma once

#include "simd_avx2.hpp"

#include "elements.hpp"

namespace anytime {
namespace {

ANYTIME_INLINE int lanes_of(Simd::Mask m) {
  return __builtin_popcount(unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(m))));
}
ANYTIME_INLINE Simd::V widen(uint64_t bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(bytes))));
}
ANYTIME_INLINE uint64_t narrow(Simd::V v) {  // as from_float<u8>
  const __m256i whole =
      _mm256_cvtps_epi32(Simd::min(Simd::max(v, Simd::zero()), Simd::all(255)));
  const __m128i half =
      _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  return uint64_t(_mm_cvtsi128_si64(_mm_packus_epi16(half, half)));
}
ANYTIME_INLINE Simd::V load(const u8* p) {
  uint64_t bytes;
  __builtin_memcpy(&bytes, p, 8);
  return widen(bytes);
}
ANYTIME_INLINE Simd::V load(const u8* p, Simd::Mask m) {
  uint64_t bytes = 0;
  __builtin_memcpy(&bytes, p, uint64_t(lanes_of(m)));
  return widen(bytes);
}
ANYTIME_INLINE void store(u8* p, Simd::V v) {
  const uint64_t bytes = narrow(v);
  __builtin_memcpy(p, &bytes, 8);
}
ANYTIME_INLINE void store(u8* p, Simd::V v, Simd::Mask m) {
  const uint64_t bytes = narrow(v);
  __builtin_memcpy(p, &bytes, uint64_t(lanes_of(m)));
}

struct Bytes {
  using V = Simd::V;
  using Element = u8;
  using Stored = int8_t;
  using Weight = __m256i;
  using Sum = __m256i;
  static constexpr int depth = 4;
  static ANYTIME_INLINE Weight weight(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static ANYTIME_INLINE Weight some(const void* p, int n) {  // whole fours
    return _mm256_maskload_epi32(static_cast<const int*>(p), Simd::first(n / depth));
  }
  static ANYTIME_INLINE Weight broadcast(const void* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
  }
  static ANYTIME_INLINE Sum multiply_add(Weight x, Weight w, Sum sum) {
    // Not the intrinsic: GCC 12 copies its sum to another register and back each time.
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w));
    return sum;
  }
  static ANYTIME_INLINE Sum all(int x) { return _mm256_set1_epi32(x); }
  static ANYTIME_INLINE Sum start(V) { return _mm256_setzero_si256(); }
  static ANYTIME_INLINE V end(Sum sum, V scale, V bias) {
    return Simd::fma(_mm256_cvtepi32_ps(sum), scale, bias);
  }
  static ANYTIME_INLINE V end_dots(const Sum (&sums)[Simd::lanes], V scale, V bias) {
    V bits[Simd::lanes];
    ANYTIME_UNROLL
    for (int i = 0; i < Simd::lanes; i++) bits[i] = _mm256_castsi256_ps(sums[i]);
    const auto add = [](V a, V b) __attribute__((always_inline)) {
      return _mm256_castsi256_ps(
          _mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
    };
    return end(_mm256_castps_si256(Simd::sums(bits, add)), scale, bias);
  }
};

}  // namespace
}  // namespace anytime
