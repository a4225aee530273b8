// Depthwise convolution: every channel by itself, at a list of pixels.
//
// Vector lanes run along channels. Of pixels side by side, kDepthwiseTile are done together: their
// windows overlap, so each input is loaded once for all of them, and each weight once. Windows reach
// further than the border of one pixel that maps have; a pixel near an edge is done alone, with the
// part of its window that lies inside.
//
// A window begins (kernel - stride) / 2 pixels above and left of its pixel: in the middle for a
// stride of 1, and for a stride of 2 as TensorFlow's "same" padding has it.
#pragma once

#include "conv.hpp"

namespace anytime {
namespace {

constexpr int kDepthwiseTile = 4;

// Weights lie as (row, column, channel), so many channels a tap: padded to whole registers.
ANYTIME_INLINE int64_t padded(int channels) {
  return int64_t(channels + Simd::lanes - 1) / Simd::lanes * Simd::lanes;
}

template <class E, int K, int S>
void depthwise_sized(const ConvCall& c, int first, int last) {
  using V = Simd::V;
  constexpr int P = kDepthwiseTile;
  const PackedConv& conv = *c.conv;
  const int channels = conv.in_channels;
  const int64_t step = padded(channels), row = int64_t(c.in_grid.pitch()) * channels;
  const float* const weights = static_cast<const float*>(conv.weights);
  const auto begin = [&](int k) __attribute__((always_inline)) {
    return c.bias != nullptr ? Simd::load(c.bias + k) : Simd::zero();
  };
  const auto end = [&](int i, int k, V sum) __attribute__((always_inline)) {
    const int rest = channels - k;
    finish<E>(c, int64_t(c.sites.at[i]) * channels + k, false, sum,
              Simd::first(rest < Simd::lanes ? rest : 0), rest >= Simd::lanes);
  };
  for (int i = first; i < last;) {
    const int y = (c.sites.yx[i] >> 16) * S - conv.before;
    const int x = (c.sites.yx[i] & 0xffff) * S - conv.before;
    const int top = y < 0 ? -y : 0, bottom = y + K > c.in_grid.height ? c.in_grid.height - y : K;
    const E* const corner =
        static_cast<const E*>(c.in) + int64_t(y + 1) * row + int64_t(x + 1) * channels;
    const bool together = i + P <= last && c.sites.yx[i + P - 1] == c.sites.yx[i] + P - 1 &&
                          x >= -1 && x + (P - 1) * S + K <= c.in_grid.width + 1;
    if (together) {
      each_register(channels, [&](int k, auto... mask) __attribute__((always_inline)) {
        V sum[P];
        ANYTIME_UNROLL
        for (int p = 0; p < P; p++) sum[p] = begin(k);
        for (int dy = top; dy < bottom; dy++) {
          V weight[K];
          ANYTIME_UNROLL
          for (int dx = 0; dx < K; dx++) weight[dx] = load(weights + (dy * K + dx) * step + k);
          ANYTIME_UNROLL
          for (int u = 0; u < (P - 1) * S + K; u++) {
            const V value = load(corner + dy * row + u * channels + k, mask...);
            ANYTIME_UNROLL
            for (int p = 0; p < P; p++)
              if (u >= p * S && u < p * S + K)
                sum[p] = Simd::fma(value, weight[u - p * S], sum[p]);
          }
        }
        ANYTIME_UNROLL
        for (int p = 0; p < P; p++) end(i + p, k, sum[p]);
      });
      i += P;
      continue;
    }
    const int left = x < 0 ? -x : 0, right = x + K > c.in_grid.width ? c.in_grid.width - x : K;
    each_register(channels, [&](int k, auto... mask) __attribute__((always_inline)) {
      V sum = begin(k);
      for (int dy = top; dy < bottom; dy++)
        for (int dx = left; dx < right; dx++)
          sum = Simd::fma(load(corner + dy * row + dx * channels + k, mask...),
                          load(weights + (dy * K + dx) * step + k), sum);
      end(i, k, sum);
    });
    i++;
  }
}

template <class E>
void depthwise(const ConvCall& c, int first, int last) {
  const bool halves = c.conv->stride == 2;
  switch (c.conv->kernel) {
    case 1: return depthwise_sized<E, 1, 1>(c, first, last);
    case 3: return halves ? depthwise_sized<E, 3, 2>(c, first, last)
                          : depthwise_sized<E, 3, 1>(c, first, last);
    case 5: return halves ? depthwise_sized<E, 5, 2>(c, first, last)
                          : depthwise_sized<E, 5, 1>(c, first, last);
    case 7: return halves ? depthwise_sized<E, 7, 2>(c, first, last)
                          : depthwise_sized<E, 7, 1>(c, first, last);
  }
}

}  // namespace
}  // namespace anytime
