// All kernels for CPUs with AVX-512 (F, BW, DQ, VL), float32.
#include "simd_avx512.hpp"

#include "conv.hpp"
#include "fill.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "mix.hpp"
#include "strips.hpp"

namespace anytime {

const Kernels kAvx512 = {
    "avx512",         Simd::lanes,
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
