// All kernels for CPUs with AVX2 and AVX-VNNI: activations and weights are bytes, sums integers, maps float32.
#include "simd_avx2_int8.hpp"

#include "kernels_int8.hpp"

namespace anytime {

const Kernels kAvx2Int8 = byte_kernels("avx2-int8", kAvx2);

}  // namespace anytime
