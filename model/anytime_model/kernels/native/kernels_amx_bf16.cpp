// Kernels for CPUs with AMX: as kernels_avx512_bf16.cpp, and convolutions by tiles.
#include "simd_avx512_bf16.hpp"

#include "amx.hpp"
#include "kernels_bf16.hpp"

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

const Kernels kAmxBf16 = with_tiles<BrainTiles>(brain_kernels("amx-bf16"));

}  // namespace anytime
