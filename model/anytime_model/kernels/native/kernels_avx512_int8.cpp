// All kernels for CPUs with AVX-512 VNNI: activations and weights are bytes, sums integers, maps float32.
#include "simd_avx512_int8.hpp"

#include "kernels_int8.hpp"

namespace anytime {

const Kernels kAvx512Int8 = byte_kernels("avx512-int8", kAvx512);

}  // namespace anytime
