// How much the blocks of an image differ from what they were.
#pragma once

#include <cstdint>

namespace anytime {

constexpr int kMostBlock = 64;  // side: the sums of a column stay in 16 bits

// See anytime_block_differences.
void block_differences(const uint8_t* now, const uint8_t* then, int height, int width, int block,
                       float* mean, float* deviation);

}  // namespace anytime
