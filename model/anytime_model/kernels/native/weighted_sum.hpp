// Weighted sums: maps of several resolutions, bilinearly upsampled where they are smaller, added
// at a list of pixels.
//
// One kernel serves the fusions (terms of equal channels are added), the exits' decoders (one
// smaller term) and the exits' encoders (`pool`: the mean of 2x2 pixels of the upsampled map,
// computed without making that map). Everything separable is worked out per axis: an output
// coordinate needs at most 3 source coordinates, with weights.
#pragma once

#include "elements.hpp"

namespace anytime {
namespace {

constexpr int kSumRegisters = 4;

struct Axis {
  int at[3];
  float weight[3];
  int count;
};

ANYTIME_INLINE void axis_add(Axis& a, int at, float weight) {
  if (weight == 0) return;
  for (int i = 0; i < a.count; i++)
    if (a.at[i] == at) {
      a.weight[i] += weight;
      return;
    }
  a.at[a.count] = at;
  a.weight[a.count++] = weight;
}

// Sources of output coordinate `o`: pixel centres at half-integers, edges repeated.
ANYTIME_INLINE Axis axis(int o, int size, int shift, bool pool) {
  Axis a{};
  const int fine = pool ? 2 : 1;
  const float inverse = 1.0f / float(1 << shift), share = 1.0f / float(fine);
  for (int i = 0; i < fine; i++) {
    const int u = fine * o + i;
    if (shift == 0) {
      axis_add(a, u, share);
      continue;
    }
    float source = (float(u) + 0.5f) * inverse - 0.5f;
    if (source < 0) source = 0;
    const int low = int(source);
    const int high = low + 1 < size ? low + 1 : low;
    const float part = source - float(low);
    axis_add(a, low, (1 - part) * share);
    axis_add(a, high, part * share);
  }
  return a;
}

// Of bytes, terms may also be floats: bytes come first among the sources.
template <class E, class O>
void weighted_sum(const WeightedSumCall& c, int first, int last) {
  using V = Simd::V;
  Axis rows[kMostTerms];
  int rows_of = -1;  // sites come in scan order, so rows change rarely
  for (int i = first; i < last; i++) {
    const void* source[9 * kMostTerms];
    float weight[9 * kMostTerms];
    int count = 0, elements = 0;  // sources, and those of them that are E
    const int y = c.sites.yx[i] >> 16, x = c.sites.yx[i] & 0xffff;
    if (y != rows_of) {
      rows_of = y;
      for (int t = 0; t < c.terms; t++)
        rows[t] = axis(y, c.term[t].grid.height, c.term[t].shift, c.pool);
    }
    const auto add = [&](int t) __attribute__((always_inline)) {
      const SumTerm& term = c.term[t];
      const bool floats = kBytes<E> && term.floats;
      const Axis columns = axis(x, term.grid.width, term.shift, c.pool);
      for (int j = 0; j < rows[t].count; j++) {
        const int64_t row = int64_t(rows[t].at[j] + 1) * term.grid.pitch() + 1;
        for (int k = 0; k < columns.count; k++) {
          const int64_t element = (row + columns.at[k]) * c.channels;
          source[count] = floats ? static_cast<const void*>(static_cast<const float*>(term.in) + element)
                                 : static_cast<const E*>(term.in) + element;
          weight[count] = rows[t].weight[j] * columns.weight[k];
          if (kBytes<E>) weight[count] *= term.scale;
          count++;
        }
      }
    };
    for (int t = 0; t < c.terms; t++)
      if (!kBytes<E> || !c.term[t].floats) add(t);
    elements = count;
    for (int t = 0; t < c.terms; t++)
      if (kBytes<E> && c.term[t].floats) add(t);
    const int64_t where = int64_t(c.sites.at[i]) * c.out_channels + c.first;
    const bool keep = c.sites.keep[i] && c.kept != nullptr;
    // Four registers side by side, so that they share the loop over sources and none waits.
    const auto finish_sum = [&](V sum, int k, auto... mask) __attribute__((always_inline)) {
      if (kBytes<E> && c.bias != nullptr)
        sum = Simd::fma(sum, load(c.scale + k, mask...), load(c.bias + k, mask...));
      if (keep) store(c.kept + where + k, sum, mask...);
      sum = activate_as<O>(c.activation, sum);
      store(static_cast<O*>(c.out) + where + k, sum, mask...);
    };
    const bool starts_with_bias = c.bias != nullptr && !kBytes<E>;
    int k = 0;
    for (; k + kSumRegisters * Simd::lanes <= c.channels; k += kSumRegisters * Simd::lanes) {
      V sum[kSumRegisters];
      ANYTIME_UNROLL
      for (int n = 0; n < kSumRegisters; n++)
        sum[n] = starts_with_bias ? load(c.bias + k + n * Simd::lanes) : Simd::zero();
      const auto add_source = [&](int j, const auto* from) __attribute__((always_inline)) {
        const V w = Simd::all(weight[j]);
        ANYTIME_UNROLL
        for (int n = 0; n < kSumRegisters; n++)
          sum[n] = Simd::fma(load(from + k + n * Simd::lanes), w, sum[n]);
      };
      for (int j = 0; j < elements; j++) add_source(j, static_cast<const E*>(source[j]));
      for (int j = elements; j < count; j++) add_source(j, static_cast<const float*>(source[j]));
      ANYTIME_UNROLL
      for (int n = 0; n < kSumRegisters; n++) finish_sum(sum[n], k + n * Simd::lanes);
    }
    each_register(c.channels - k, [&](int rest, auto... mask) __attribute__((always_inline)) {
      V sum = starts_with_bias ? load(c.bias + k + rest, mask...) : Simd::zero();
      const auto add_source = [&](int j, const auto* from) __attribute__((always_inline)) {
        sum = Simd::fma(load(from + k + rest, mask...), Simd::all(weight[j]), sum);
      };
      for (int j = 0; j < elements; j++) add_source(j, static_cast<const E*>(source[j]));
      for (int j = elements; j < count; j++) add_source(j, static_cast<const float*>(source[j]));
      finish_sum(sum, k + rest, mask...);
    });
  }
}

}  // namespace
}  // namespace anytime
