// From an image to the network's input: normalise, lay out, and repeat the border up to the padded
// size. Rows are independent.
#pragma once

#include "elements.hpp"

namespace anytime {
namespace {

template <class E>
void image(const ImageCall& c, int first, int last) {
  const int64_t plane = int64_t(c.height) * c.width;
  E of_byte[3][256];
  if (c.bytes != nullptr)
    for (int k = 0; k < 3; k++)
      for (int byte = 0; byte < 256; byte++)
        of_byte[k][byte] = from_float<E>(float(byte) * c.scale[k] + c.offset[k]);
  for (int y = first; y < last; y++) {
    const int row = y < c.height ? y : c.height - 1;
    E* out = static_cast<E*>(c.out) + (int64_t(y + 1) * c.grid.pitch() + 1) * c.channels;
    for (int x = 0; x < c.grid.width; x++, out += c.channels) {
      const int64_t pixel = int64_t(row) * c.width + (x < c.width ? x : c.width - 1);
      for (int k = 0; k < 3; k++)
        out[k] = c.bytes != nullptr ? of_byte[k][c.bytes[3 * pixel + k]]
                                    : from_float<E>(c.floats[k * plane + pixel]);
    }
  }
}

}  // namespace
}  // namespace anytime
