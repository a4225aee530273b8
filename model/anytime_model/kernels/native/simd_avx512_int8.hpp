// AVX-512 with VNNI: as simd_avx512.hpp, and fours of bytes that are multiplied and added to an
// integer in one instruction.
#pragma once

#include "simd_avx512.hpp"

#include "elements.hpp"

namespace anytime {
namespace {

ANYTIME_INLINE Simd::V widen(__m128i bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}
ANYTIME_INLINE __m128i narrow(Simd::V v) {  // as from_float<u8>
  return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(Simd::max(v, Simd::zero())));
}
ANYTIME_INLINE Simd::V load(const u8* p) {
  return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
ANYTIME_INLINE Simd::V load(const u8* p, Simd::Mask m) { return widen(_mm_maskz_loadu_epi8(m, p)); }
ANYTIME_INLINE void store(u8* p, Simd::V v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v));
}
ANYTIME_INLINE void store(u8* p, Simd::V v, Simd::Mask m) { _mm_mask_storeu_epi8(p, m, narrow(v)); }

struct Bytes {
  using V = Simd::V;
  using Element = u8;
  using Stored = int8_t;
  using Weight = __m512i;
  using Sum = __m512i;
  static constexpr int depth = 4;
  static ANYTIME_INLINE Weight weight(const void* p) { return _mm512_loadu_si512(p); }
  static ANYTIME_INLINE Weight some(const void* p, int n) {
    return _mm512_maskz_loadu_epi8(__mmask64((uint64_t(1) << n) - 1), p);
  }
  static ANYTIME_INLINE Weight broadcast(const void* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }
  static ANYTIME_INLINE Sum multiply_add(Weight x, Weight w, Sum sum) {
    // Not the intrinsic: GCC 12 copies its sum to another register and back each time.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
  }
  static ANYTIME_INLINE Sum all(int x) { return _mm512_set1_epi32(x); }
  static ANYTIME_INLINE Sum start(V) { return _mm512_setzero_si512(); }
  static ANYTIME_INLINE V end(Sum sum, V scale, V bias) {
    return Simd::fma(_mm512_cvtepi32_ps(sum), scale, bias);
  }
  static ANYTIME_INLINE V end_dots(const Sum (&sums)[Simd::lanes], V scale, V bias) {
    V bits[Simd::lanes];
    ANYTIME_UNROLL
    for (int i = 0; i < Simd::lanes; i++) bits[i] = _mm512_castsi512_ps(sums[i]);
    const auto add = [](V a, V b) __attribute__((always_inline)) {
      return _mm512_castsi512_ps(
          _mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
    };
    return end(_mm512_castps_si512(Simd::sums(bits, add)), scale, bias);
  }
};

}  // namespace
}  // namespace anytime
