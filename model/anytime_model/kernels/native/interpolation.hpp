// Interpolation where a mask is off, and only where something will look.
//
// A masked convolution puts at an inactive pixel the weighted mean of the active outputs within
// three pixels (the definition is kernels/reference.py). Normalisation comes after it, so with
// normalisation folded into the convolution's weights the kept values z already hold its shift b,
// and an inactive pixel becomes
//
//     relu(sum w z + b (1 - sum w) + residual),   sums over the active pixels around it.
//
// Which those are is a word of 49 bits for each pixel, shared by all layers; a layer drops the bits
// whose weights are too small to matter (with a lambda near 3, all but the nearest neighbours).
#pragma once

#include "elements.hpp"

namespace anytime {
namespace {

template <class E>
void interpolate(const InterpolationCall& c, int first, int last) {
  using V = Simd::V;
  int64_t offset[kWindow];
  for (int bit = 0; bit < kWindow; bit++)
    offset[bit] = (int64_t(bit / kSide - kRadius) * c.pitch + bit % kSide - kRadius) * c.channels;
  for (int i = first; i < last; i++) {
    const float* near[kWindow];
    float weight[kWindow];
    int count = 0;
    float covered = 0;
    const int64_t where = int64_t(c.sites.at[i]) * c.channels;
    for (uint64_t bits = c.sites.around[i] & c.used; bits; bits &= bits - 1) {
      const int bit = __builtin_ctzll(bits);
      near[count] = c.kept + where + offset[bit];
      weight[count] = c.window[bit];
      covered += c.window[bit];
      count++;
    }
    const V bare = Simd::all(1 - covered);
    each_register(c.channels, [&](int k, auto... mask) __attribute__((always_inline)) {
      V sum = Simd::fma(load(c.shift + k, mask...), bare, Simd::zero());
      for (int j = 0; j < count; j++)
        sum = Simd::fma(load(near[j] + k, mask...), Simd::all(weight[j]), sum);
      if (c.residual != nullptr)
        sum = add_residual<E>(sum, load(static_cast<const E*>(c.residual) + where + k, mask...),
                              c.residual_scale);
      sum = activate_as<E>(c.activation, sum);
      store(static_cast<E*>(c.out) + where + k, sum, mask...);
    });
  }
}

}  // namespace
}  // namespace anytime
