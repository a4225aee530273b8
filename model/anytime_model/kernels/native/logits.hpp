// From a map to what is asked of it: how sure it is at a pixel, and the label of every image pixel.
//
// Both bring a few pixels into channel-by-channel order first, so that the loops run along pixels
// and the compiler can turn them into vector code on any CPU.
#pragma once

#include <cstring>

#include "elements.hpp"

namespace anytime {
namespace {

constexpr int kBatch = 64;  // pixels

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
  float value[kMostOutputs][kBatch];
  float most[kBatch], total[kBatch], moment[kBatch];
  for (int begin = first; begin < last; begin += kBatch) {
    const int count = last - begin < kBatch ? last - begin : kBatch;
    for (int i = 0; i < kBatch; i++) {
      const int site = i < count ? begin + i : begin;
      const float* pixel = c.logits + int64_t(c.sites.at[site]) * c.channels;
      for (int k = 0; k < c.channels; k++) value[k][i] = pixel[k];
    }
    for (int i = 0; i < kBatch; i++) most[i] = value[0][i], total[i] = moment[i] = 0;
    for (int k = 1; k < c.channels; k++)
      for (int i = 0; i < kBatch; i++) most[i] = value[k][i] > most[i] ? value[k][i] : most[i];
    for (int k = 0; k < c.channels && !c.heat; k++)
      for (int i = 0; i < kBatch; i++) {
        const float below = value[k][i] - most[i], e = exp_negative(below);
        total[i] += e;
        moment[i] += e * below;
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

// One row of a map, 64 columns and their neighbours, channel by channel; edges repeated.
using Planes = float[kMostOutputs][kBatch + 2];

inline void load_planes(const DecodeCall& c, int row, int begin, Planes& planes) {
  for (int k = 0; k < c.channels; k++) {
    const float* in = c.logits + k * c.channel + row * c.row;
    for (int j = 0; j < kBatch + 2; j++) {
      const int x = begin - 1 + j;
      planes[k][j] = in[(x < 0 ? 0 : x < c.width ? x : c.width - 1) * c.column];
    }
  }
}

// Rows [first, last) of the labels: bilinear upsampling by 4 (pixel centres at half-integers, edges
// repeated), then the first channel with the largest value. The upsampled map is never stored: of
// the four image pixels that lie in a map's column, each keeps its best value and label so far.
inline void decode(const DecodeCall& c, int first, int last) {
  constexpr float kBefore[4] = {0.375f, 0.125f, 0, 0}, kAt[4] = {0.625f, 0.875f, 0.875f, 0.625f},
                  kAfter[4] = {0, 0, 0.125f, 0.375f};
  Planes planes[2];
  float best[4][kBatch], blend[kBatch + 2];
  int32_t label[4][kBatch];
  for (int begin = 0; 4 * begin < c.out_width; begin += kBatch) {
    int held[2] = {-1, -1};  // the rows that the planes hold: even ones in the first
    for (int y = first; y < last; y++) {
      float source = (float(y) + 0.5f) * 0.25f - 0.5f;
      if (source < 0) source = 0;
      const int top = int(source), bottom = top + 1 < c.height ? top + 1 : top;
      const float low = source - float(top), high = 1 - low;
      const int rows[2] = {top, bottom};
      for (const int row : rows)
        if (held[row % 2] != row) load_planes(c, held[row % 2] = row, begin, planes[row % 2]);
      for (int i = 0; i < 4; i++)
        for (int x = 0; x < kBatch; x++) best[i][x] = -__builtin_inff(), label[i][x] = 0;
      for (int k = 0; k < c.channels; k++) {
        const float *upper = planes[top % 2][k], *lower = planes[bottom % 2][k];
        for (int x = 0; x < kBatch + 2; x++) blend[x] = high * upper[x] + low * lower[x];
        for (int i = 0; i < 4; i++)
          for (int x = 0; x < kBatch; x++) {
            const float value = kBefore[i] * blend[x] + kAt[i] * blend[x + 1] +
                                kAfter[i] * blend[x + 2];
            label[i][x] = value > best[i][x] ? k : label[i][x];
            best[i][x] = value > best[i][x] ? value : best[i][x];
          }
      }
      uint8_t row[4 * kBatch];
      for (int x = 0; x < kBatch; x++)
        for (int i = 0; i < 4; i++) row[4 * x + i] = uint8_t(label[i][x]);
      const int left = c.out_width - 4 * begin;
      std::memcpy(c.labels + int64_t(y) * c.out_width + 4 * begin, row,
                  size_t(left < 4 * kBatch ? left : 4 * kBatch));
    }
  }
}

}  // namespace
}  // namespace anytime
