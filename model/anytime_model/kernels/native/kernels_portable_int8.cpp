// All kernels for any CPU: activations and weights are bytes, sums integers, maps float32.
#include "simd_portable_int8.hpp"

#include "conv.hpp"
#include "interpolation.hpp"
#include "image.hpp"
#include "logits.hpp"
#include "weighted_sum.hpp"

namespace anytime {

const Kernels kPortableInt8 = {
    "portable-int8",   Simd::lanes,
    Bytes::depth,      Simd::most_vectors,
    sizeof(u8),        pack<Bytes>,
    conv<Bytes, u8>,   conv<Bytes, float>,
    nullptr,           nullptr,
    interpolate<u8>,
    weighted_sum<u8, u8>, weighted_sum<float, float>,
    image<u8>,
    confidence,        decode,
    busy<Bytes>,
};

}  // namespace anytime
