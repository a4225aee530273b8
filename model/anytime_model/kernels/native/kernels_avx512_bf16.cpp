// All kernels for CPUs with AVX-512 and bfloat16: activations and weights are bf16, sums and maps
// float32.
#include "simd_avx512_bf16.hpp"

#include "conv.hpp"
#include "fill.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "mix.hpp"

namespace anytime {

const Kernels kAvx512Bf16 = {
    "avx512-bf16",     Simd::lanes,
    Brain::depth,      Simd::most_vectors,
    sizeof(bf16),      pack<Brain>,
    conv<Brain, bf16>, conv<Brain, float>,
    nullptr,
    fill<bf16>,        mix<bf16, bf16>,
    mix<float, float>, image<bf16>,
    confidence,        decode,
    busy<Brain>,
};

}  // namespace anytime
