// 3x3 convolution by Winograd F(4,3) along rows: tiles of 4x1 pixels, half of the multiplications.
//
// Along a row, four neighbouring sums of three products each (12 multiplications) can be had from
// six products: Winograd's F(4,3) with the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray: Fast
// Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.3, here in one dimension). Six
// inputs of a row are combined into six values, one for each point; each point has weights of its
// own, made once; the sums over channels and over the window's three rows are 1x1 convolutions, done
// by the same loops as all others; six sums are combined into four outputs.
//
// Only x is treated so: rows stay independent of each other, as row tiling needs it, and a tile
// needs nothing but a width that is a multiple of four. It pays where every pixel is computed, which
// is in stage 1. Rounding differs from that of nine products by some 1e-6 of the largest value; in
// bfloat16 it would be too much.
#pragma once

#include "conv.hpp"

namespace anytime {
namespace {

// a b + c
ANYTIME_INLINE Simd::V times(float a, Simd::V b, Simd::V c) {
  return Simd::fma(Simd::all(a), b, c);
}

// The inputs of a Winograd tile, `step` floats apart, to the values at the six points, `stride` apart.
template <class... Mask>
ANYTIME_INLINE void to_points(const float* in, int64_t step, float* out, int64_t stride,
                              Mask... mask) {
  using V = Simd::V;
  V d[kWinogradPoints];
  ANYTIME_UNROLL
  for (int x = 0; x < kWinogradPoints; x++) d[x] = load(in + x * step, mask...);
  const V even = times(-4, d[2], d[4]), odd = times(-4, d[1], d[3]);
  const V near = times(-1, d[2], d[4]), far = times(-1, d[1], d[3]);
  store(out, times(4, d[0], times(-5, d[2], d[4])), mask...);
  store(out + stride, Simd::add(even, odd), mask...);
  store(out + 2 * stride, times(-1, odd, even), mask...);
  store(out + 3 * stride, times(2, far, near), mask...);
  store(out + 4 * stride, times(-2, far, near), mask...);
  store(out + 5 * stride, times(4, d[1], times(-5, d[3], d[5])), mask...);
}

// The sums at the six points, `stride` floats apart, to a tile's four outputs.
template <class... Mask>
ANYTIME_INLINE void from_points(const float* sums, int64_t stride,
                                Simd::V (&out)[kWinogradOutputs], Mask... mask) {
  using V = Simd::V;
  V m[kWinogradPoints];
  ANYTIME_UNROLL
  for (int p = 0; p < kWinogradPoints; p++) m[p] = load(sums + p * stride, mask...);
  const V sum1 = Simd::add(m[1], m[2]), difference1 = times(-1, m[2], m[1]);
  const V sum2 = Simd::add(m[3], m[4]), difference2 = times(-1, m[4], m[3]);
  out[0] = Simd::add(m[0], Simd::add(sum1, sum2));
  out[1] = times(2, difference2, difference1);
  out[2] = times(4, sum2, sum1);
  out[3] = Simd::add(m[5], times(8, difference2, difference1));
}

// Sites [first, last) of whole Winograd tiles, at most kMostWinogradTiles of them. `room` holds
// winograd_room floats.
template <class A>
void conv_winograd(const ConvCall& c, int first, int last, float* room) {
  const PackedConv& conv = *c.conv;
  const int tiles = (last - first) / kWinogradOutputs;
  const int in = conv.in_channels, out = conv.out_channels;
  const int64_t row = int64_t(c.in_grid.pitch()) * in, spread = int64_t(tiles) * 3 * in;
  for (int s = 0; s < tiles; s++)
    for (int y = 0; y < 3; y++) {
      const int64_t corner = int64_t(c.from[first + s * kWinogradOutputs] - 1) * in + (y - 1) * row;
      const float* from = static_cast<const float*>(c.in) + corner;
      float* to = room + (int64_t(s) * 3 + y) * in;
      each_register(in, [&](int k, auto... mask) __attribute__((always_inline)) {
        to_points(from + k, in, to + k, spread, mask...);
      });
    }
  float* const sums = room + kWinogradPoints * spread;
  const int64_t of_point = int64_t(tiles) * out;
  int32_t at[kMostWinogradTiles];
  const uint8_t never[kMostWinogradTiles] = {};
  for (int s = 0; s < tiles; s++) at[s] = s;
  for (int p = 0; p < kWinogradPoints; p++) {
    ConvCall point{};
    point.conv = conv.points + p;
    point.in = room + p * spread;
    point.from = point.sites.at = at;
    point.sites.keep = never;
    point.out = sums + p * of_point;
    point.out_pitch = out;
    for (int g = 0; g < point.conv->group_count; g++)
      anytime::conv<A, float>(point, g, 0, tiles);
  }
  for (int s = 0; s < tiles; s++)
    each_register(out, [&](int k, auto... mask) __attribute__((always_inline)) {
      Simd::V value[kWinogradOutputs];
      from_points(sums + int64_t(s) * out + k, of_point, value, mask...);
      constexpr bool whole = sizeof...(mask) == 0;
      ANYTIME_UNROLL
      for (int x = 0; x < kWinogradOutputs; x++) {
        if (c.bias != nullptr) value[x] = Simd::add(value[x], Simd::load(c.bias + k));
        const int64_t where = int64_t(c.sites.at[first + s * kWinogradOutputs + x]) * out + k;
        finish<float>(c, where, false, value[x], Simd::first(whole ? 0 : out - k), whole);
      }
    });
}

}  // namespace
}  // namespace anytime
