// All kernels for CPUs with AVX-512 and bfloat16: activations and weights are bf16, sums and maps
// float32.
#include "simd_avx512_bf16.hpp"

#include "conv.hpp"
#include "depthwise.hpp"
#include "interpolation.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "weighted_sum.hpp"

namespace anytime {

const Kernels kAvx512Bf16 = {
    "avx512-bf16",     Simd::lanes,
    Brain::depth,      Simd::most_vectors,
    true,
    sizeof(bf16),      pack<Brain>,
    conv<Brain, bf16>, conv<Brain, float>,
    depthwise<bf16>,   nullptr,
    interpolate<bf16>,
    weighted_sum<bf16, bf16>, weighted_sum<float, float>,
    image<bf16>,
    confidence,        decode,
    busy<Brain>,       busy_macs<Brain>, nullptr,
};

}  // namespace anytime
