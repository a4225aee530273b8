// All kernels for any CPU: activations and weights are bytes, sums integers, maps float32.
#include "simd_portable_int8.hpp"

#include "kernels_int8.hpp"

namespace anytime {

const Kernels kPortableInt8 = byte_kernels("portable-int8", kPortable);

}  // namespace anytime
