// The table of kernels for bytes, the same for every instruction set; after its simd_*_int8.hpp. `whole`
// are the kernels for floats of the same one.
#pragma once

#include "conv.hpp"
#include "interpolation.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "resize.hpp"
#include "weighted_sum.hpp"

namespace anytime {
namespace {

constexpr Kernels byte_kernels(const char* name, const Kernels& whole) {
  return {
      name,              Simd::lanes,
      Bytes::depth,      Simd::most_vectors,
      true,
      sizeof(u8),        pack<Bytes>,
      conv<Bytes, u8>,   conv<Bytes, float>,
      nullptr,           nullptr,
      interpolate<u8>,
      weighted_sum<u8, u8>, weighted_sum<u8, float>,
      image<u8>,
      confidence,        decode,
      resize_columns,    resize_rows,
      busy<Bytes>,       busy_macs<Bytes>, &whole,
  };
}

}  // namespace
}  // namespace anytime
