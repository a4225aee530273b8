// All kernels for CPUs with AVX2 and FMA.
#include "simd_avx2.hpp"

#include "conv.hpp"
#include "fill.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "mix.hpp"
#include "strips.hpp"

namespace anytime {

const Kernels kAvx2 = {
    "avx2",           Simd::lanes,
    1,                 Simd::most_vectors,
    sizeof(float),     pack<Float>,
    conv<Float, float>, conv<Float, float>,
    conv_strips<Float>,
    fill<float>,       mix<float, float>,
    mix<float, float>, image<float>,
    confidence,        decode,
    busy<Float>,
};

}  // namespace anytime
