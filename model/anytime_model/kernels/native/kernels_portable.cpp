// All kernels for any CPU.
#include "simd_portable.hpp"

#include "conv.hpp"
#include "fill.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "mix.hpp"
#include "strips.hpp"

namespace anytime {

const Kernels kPortable = {
    "portable",        Simd::lanes,
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
