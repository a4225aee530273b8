// All kernels for CPUs with AVX-512 and bfloat16: activations and weights are bf16, sums and maps
// float32.
#include "simd_avx512_bf16.hpp"

#include "kernels_bf16.hpp"

namespace anytime {

const Kernels kAvx512Bf16 = brain_kernels("avx512-bf16");

}  // namespace anytime
