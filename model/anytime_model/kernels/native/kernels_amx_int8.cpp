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

constexpr Kernels tile_kernels() {
  Kernels all = byte_kernels("amx-int8", kAvx512);
  all.dot_products = false;
  all.conv = tile_conv<ByteTiles, u8>;
  all.conv_to_float = tile_conv<ByteTiles, float>;
  all.busy = tile_busy<ByteTiles>;
  all.busy_macs = tile_busy_macs(Bytes::depth);
  return all;
}

}  // namespace

const Kernels kAmxInt8 = tile_kernels();

}  // namespace anytime
