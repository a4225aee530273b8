// Kernels for CPUs with AMX: as kernels_avx512_bf16.cpp, and convolutions by tiles.
#include "simd_avx512_bf16.hpp"

#include "amx.hpp"
#include "depthwise.hpp"
#include "image.hpp"
#include "interpolation.hpp"
#include "logits.hpp"
#include "weighted_sum.hpp"

namespace anytime {
namespace {

struct BrainTiles : Brain {
  template <int sums, int inputs, int weights>
  static ANYTIME_INLINE void multiply_tiles() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(inputs), "i"(weights));
  }
  static ANYTIME_INLINE V end_tile(const float* sums, V, V bias) {
    return Simd::add(Simd::load(sums), bias);
  }
};

}  // namespace

const Kernels kAmxBf16 = {
    "amx-bf16",        Simd::lanes,
    Brain::depth,      Simd::most_vectors,
    false,
    sizeof(bf16),      pack<Brain>,
    tile_conv<BrainTiles, bf16>, tile_conv<BrainTiles, float>,
    depthwise<bf16>,   nullptr,
    interpolate<bf16>,
    weighted_sum<bf16, bf16>, weighted_sum<float, float>,
    image<bf16>,
    confidence,        decode,
    tile_busy<BrainTiles>, tile_busy_macs(Brain::depth), nullptr,
};

}  // namespace anytime
