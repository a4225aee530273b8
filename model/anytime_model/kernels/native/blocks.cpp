#include "blocks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "pool.hpp"

namespace anytime {
namespace {

constexpr int kChannels = 3;
constexpr int kRowsOfBlocks = 6;  // in a task

// Sums down the rows of a block, of every column and channel by itself, so that they are vectors.
void add_row(const uint8_t* now, const uint8_t* then, int count, int16_t* sums, int32_t* squares) {
  for (int i = 0; i < count; i++) {
    const int16_t difference = int16_t(now[i] - then[i]);
    sums[i] = int16_t(sums[i] + difference);
    squares[i] += difference * difference;
  }
}

}  // namespace

void block_differences(const uint8_t* now, const uint8_t* then, int height, int width, int block,
                       float* mean, float* deviation) {
  const int rows = height / block, columns = width / block, line = width * kChannels;
  const float pixels = float(block * block);
  Pool::shared().each((rows + kRowsOfBlocks - 1) / kRowsOfBlocks, [&](int task, int) {
    std::vector<int16_t> sums(static_cast<size_t>(line));
    std::vector<int32_t> squares(static_cast<size_t>(line));
    const int end = std::min(rows, (task + 1) * kRowsOfBlocks);
    for (int row = task * kRowsOfBlocks; row < end; row++) {
      std::fill(sums.begin(), sums.end(), int16_t(0));
      std::fill(squares.begin(), squares.end(), 0);
      for (int y = row * block; y < (row + 1) * block; y++)
        add_row(now + int64_t(y) * line, then + int64_t(y) * line, line, sums.data(),
                squares.data());
      for (int column = 0; column < columns; column++) {
        int32_t sum[kChannels] = {};
        int64_t square = 0;
        for (int i = column * block * kChannels; i < (column + 1) * block * kChannels; i++) {
          sum[i % kChannels] += sums[size_t(i)];
          square += squares[size_t(i)];
        }
        float largest = 0, of_means = 0;
        for (const int32_t one : sum) {
          const float of_channel = float(one) / pixels;
          largest = std::max(largest, std::abs(of_channel));
          of_means += of_channel * of_channel;
        }
        const float variance = float(square) / (kChannels * pixels) - of_means / kChannels;
        const int64_t at = int64_t(row) * columns + column;
        mean[at] = largest;
        deviation[at] = std::sqrt(std::max(0.0f, variance));
      }
    }
  });
}

}  // namespace anytime
