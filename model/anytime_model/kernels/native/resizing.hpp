// An image at another size: the bilinear filter of Pillow's `Image.resize`, bit for bit, along rows
// and then along columns. Its support grows with the scale, so that no pixel of a larger image is
// left out.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace anytime {

// Throws Refusal where a side is smaller than what one pixel of the result is made from.
void resize(const Kernels&, const uint8_t* image, int height, int width, int out_height,
            int out_width, uint8_t* out);

}  // namespace anytime
