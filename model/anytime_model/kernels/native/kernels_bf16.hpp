// The table of kernels for bf16; after simd_avx512_bf16.hpp.
#pragma once

#include "conv.hpp"
#include "depthwise.hpp"
#include "image.hpp"
#include "interpolation.hpp"
#include "logits.hpp"
#include "resize.hpp"
#include "weighted_sum.hpp"

namespace anytime {
namespace {

constexpr Kernels brain_kernels(const char* name) {
  return {
      name,              Simd::lanes,
      Brain::depth,      Simd::most_vectors,
      true,
      sizeof(bf16),      pack<Brain>,
      conv<Brain, bf16>, conv<Brain, float>,
      depthwise<bf16>,   nullptr,
      interpolate<bf16>,
      weighted_sum<bf16, bf16>, weighted_sum<float, float>,
      image<bf16>,
      confidence,        decode,
      resize_columns,    resize_rows,
      busy<Brain>,       busy_macs<Brain>, nullptr,
  };
}

}  // namespace
}  // namespace anytime
