// All kernels for CPUs with AVX-512 (F, BW, DQ, VL), float32.
#include "simd_avx512.hpp"

#include "conv.hpp"
#include "depthwise.hpp"
#include "interpolation.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "resize.hpp"
#include "weighted_sum.hpp"
#include "winograd.hpp"

namespace anytime {

const Kernels kAvx512 = {
    "avx512",         Simd::lanes,
    1,                 Simd::most_vectors,
    true,
    sizeof(float),     pack<Float>,
    conv<Float, float>, conv<Float, float>,
    depthwise<float>,  conv_winograd<Float>,
    interpolate<float>,
    weighted_sum<float, float>, weighted_sum<float, float>,
    image<float>,
    confidence,        decode,
    resize_columns,    resize_rows,
    busy<Float>,       busy_macs<Float>, nullptr,
};

}  // namespace anytime
