// Bytes of an image at another size, as weighted means in whole numbers, so that all instruction
// sets make the same bytes: first along rows, then along columns. See resizing.hpp.
#pragma once

#include "types.hpp"

namespace anytime {
namespace {

// A sum of bytes times weights of 1 << kWeightBits in all, back as a byte.
ANYTIME_INLINE uint8_t byte_of_sum(int32_t sum) {
  sum >>= kWeightBits;
  return uint8_t(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// Columns [first, last) of a row.
inline void resize_row(const ResizeCall& c, const uint8_t* in, uint8_t* out, int first, int last) {
  for (int x = first; x < last; x++) {
    const uint8_t* pixel = in + 3 * c.taps.first[x];
    const int32_t* weights = c.taps.weights + int64_t(x) * c.taps.count;
    int32_t sum[3] = {kHalfWeight, kHalfWeight, kHalfWeight};
    for (int i = 0; i < c.taps.count; i++)
      for (int k = 0; k < 3; k++) sum[k] += pixel[3 * i + k] * weights[i];
    for (int k = 0; k < 3; k++) out[3 * x + k] = byte_of_sum(sum[k]);
  }
}

#if defined(__AVX2__)
// The same of columns [0, last), four bytes a pixel: the byte after a pixel is read and written.
template <int kTaps>
inline void resize_row_by_fours(const ResizeCall& c, const uint8_t* in, uint8_t* out, int last) {
  const int32_t* weights = c.taps.weights;
  for (int x = 0; x < last; x++, out += 3, weights += kTaps) {
    const uint8_t* pixel = in + 3 * c.taps.first[x];
    __m128i sum = _mm_set1_epi32(kHalfWeight);
    ANYTIME_UNROLL
    for (int i = 0; i < kTaps; i++) {
      const __m128i bytes = _mm_cvtepu8_epi32(_mm_loadu_si32(pixel + 3 * i));
      sum = _mm_add_epi32(sum, _mm_mullo_epi32(bytes, _mm_set1_epi32(weights[i])));
    }
    sum = _mm_srai_epi32(sum, kWeightBits);
    const __m128i words = _mm_packus_epi32(sum, sum);
    _mm_storeu_si32(out, _mm_packus_epi16(words, words));
  }
}
#endif

// Rows [first, last) of the image: other columns.
inline void resize_columns(const ResizeCall& c, int first, int last) {
  for (int y = first; y < last; y++) {
    const uint8_t* in = c.in + int64_t(y) * c.in_width * 3;
    uint8_t* out = c.out + int64_t(y) * c.out_width * 3;
    int done = 0;
#if defined(__AVX2__)
    // Those before the first whose taps reach the end of the row, and never the last one.
    done = c.taps.inside < c.out_width ? c.taps.inside : c.out_width - 1;
    switch (c.taps.count) {
      case 3: resize_row_by_fours<3>(c, in, out, done); break;
      case 5: resize_row_by_fours<5>(c, in, out, done); break;
      case 7: resize_row_by_fours<7>(c, in, out, done); break;
      case 9: resize_row_by_fours<9>(c, in, out, done); break;
      default: done = 0;
    }
#endif
    resize_row(c, in, out, done, c.out_width);
  }
}

// Rows [first, last) of the result.
inline void resize_rows(const ResizeCall& c, int first, int last) {
  constexpr int kPart = 192;
  const int64_t bytes = int64_t(c.in_width) * 3;
  for (int y = first; y < last; y++) {
    const int32_t* weights = c.taps.weights + int64_t(y) * c.taps.count;
    for (int64_t begin = 0; begin < bytes; begin += kPart) {
      const int part = int(bytes - begin < kPart ? bytes - begin : kPart);
      int32_t sum[kPart];
      for (int j = 0; j < kPart; j++) sum[j] = kHalfWeight;
      for (int i = 0; i < c.taps.count; i++) {
        const uint8_t* in = c.in + (c.taps.first[y] + i) * bytes + begin;
        for (int j = 0; j < part; j++) sum[j] += in[j] * weights[i];
      }
      uint8_t* out = c.out + y * bytes + begin;
      for (int j = 0; j < part; j++) out[j] = byte_of_sum(sum[j]);
    }
  }
}

}  // namespace
}  // namespace anytime
