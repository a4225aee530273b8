// Kernels for CPUs with AMX: as kernels_avx512_int8.cpp, bit for bit, and convolutions by tiles.
#include "simd_avx512_int8.hpp"

#include "amx.hpp"
#include "kernels_int8.hpp"

namespace anytime {
namespace {

struct ByteTiles : Bytes {
  template <int sums, int inputs, int weights>
  static ANYTIME_INLINE void multiply_tiles() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(inputs), "i"(weights));
  }
  static ANYTIME_INLINE V end_tile(const float* sums, V scale, V bias) {
    return end(_mm512_loadu_si512(sums), scale, bias);
  }
};

}  // namespace

const Kernels kAmxInt8 = with_tiles<ByteTiles>(byte_kernels("amx-int8", kAvx512));

}  // namespace anytime
