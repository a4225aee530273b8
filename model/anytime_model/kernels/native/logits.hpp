// From a map to what is asked of it: how sure it is at a pixel, and the label of every image pixel.
//
// Both bring a few pixels into channel-by-channel order first, so that the loops run along pixels
// and the compiler can turn them into vector code on any CPU.
#pragma once

#include "elements.hpp"

namespace anytime {
namespace {

constexpr int kTogether = 64;  // pixels

// e^x for x <= 0, within 2 units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2]
// (coefficients of the Taylor series up to x^7).
ANYTIME_INLINE float exp_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  const int n = int(x * 1.44269504f - 0.5f);  // truncation rounds to nearest, as x <= 0
  const float r = (x - float(n) * 0.693145752f) - float(n) * 1.42860677e-6f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t bits = (n + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, 4);
  return p * power;
}

inline void confidence(const ConfidenceCall& c, int first, int last) {
  float value[kTogether], most[kTogether], total[kTogether], moment[kTogether];
  for (int begin = first; begin < last; begin += kTogether) {
    const int count = last - begin < kTogether ? last - begin : kTogether;
    const auto gather = [&](int k) {
      for (int i = 0; i < count; i++)
        value[i] = c.logits[int64_t(c.sites.at[begin + i]) * c.channels + k];
      for (int i = count; i < kTogether; i++) value[i] = 0;
    };
    for (int i = 0; i < kTogether; i++) most[i] = -__builtin_inff(), total[i] = moment[i] = 0;
    for (int k = 0; k < c.channels; k++) {
      gather(k);
      for (int i = 0; i < kTogether; i++) most[i] = value[i] > most[i] ? value[i] : most[i];
    }
    if (!c.heat) {
      for (int k = 0; k < c.channels; k++) {
        gather(k);
        for (int i = 0; i < kTogether; i++) {
          const float below = value[i] - most[i], e = exp_negative(below);
          total[i] += e;
          moment[i] += e * below;
        }
      }
    }
    for (int i = 0; i < count; i++) {
      const int yx = c.sites.yx[begin + i];
      const int64_t pixel = int64_t(yx >> 16) * c.width + (yx & 0xffff);
      c.confidence[pixel] = c.heat ? most[i] : 1 / total[i];
      c.measure[pixel] =
          c.entropy ? __builtin_logf(total[i]) - moment[i] / total[i] : c.confidence[pixel];
    }
  }
}

// Rows [first, last) of the labels: bilinear upsampling by 4 (pixel centres at half-integers, edges
// repeated), then the first channel with the largest value. The upsampled map is never stored: only
// 64 columns of it at a time, channel by channel.
inline void decode(const DecodeCall& c, int first, int last) {
  constexpr int kColumns = kTogether / 4 + 2;
  for (int y = first; y < last; y++) {
    float source = (float(y) + 0.5f) * 0.25f - 0.5f;
    if (source < 0) source = 0;
    const int top = int(source), bottom = top + 1 < c.height ? top + 1 : top;
    const float low = source - float(top), high = 1 - low;
    const float* upper = c.logits + int64_t(top) * c.width * c.channels;
    const float* lower = c.logits + int64_t(bottom) * c.width * c.channels;
    for (int begin = 0; begin < c.out_width; begin += kTogether) {
      // Columns begin/4 - 1 .. begin/4 + 16 of the map decide these 64 pixels.
      float best[kTogether];
      int32_t label[kTogether];
      for (int i = 0; i < kTogether; i++) best[i] = -__builtin_inff(), label[i] = 0;
      const float* up[kColumns];
      const float* down[kColumns];
      for (int j = 0; j < kColumns; j++) {
        int x = begin / 4 - 1 + j;
        x = x < 0 ? 0 : x < c.width ? x : c.width - 1;
        up[j] = upper + int64_t(x) * c.channels;
        down[j] = lower + int64_t(x) * c.channels;
      }
      for (int k = 0; k < c.channels; k++) {
        float column[kColumns];
        for (int j = 0; j < kColumns; j++) column[j] = high * up[j][k] + low * down[j][k];
        for (int j = 0; j < kTogether / 4; j++) {
          const float a = column[j], b = column[j + 1], d = column[j + 2];
          const float four[4] = {0.375f * a + 0.625f * b, 0.125f * a + 0.875f * b,
                                 0.875f * b + 0.125f * d, 0.625f * b + 0.375f * d};
          for (int i = 0; i < 4; i++) {
            const bool better = four[i] > best[4 * j + i];
            best[4 * j + i] = better ? four[i] : best[4 * j + i];
            label[4 * j + i] = better ? k : label[4 * j + i];
          }
        }
      }
      uint8_t* out = c.labels + int64_t(y) * c.out_width + begin;
      for (int i = 0; i < kTogether && begin + i < c.out_width; i++) out[i] = uint8_t(label[i]);
    }
  }
}

}  // namespace
}  // namespace anytime
