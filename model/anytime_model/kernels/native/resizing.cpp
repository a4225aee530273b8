#include "resizing.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "plan.hpp"
#include "pool.hpp"

namespace anytime {

namespace {

constexpr int kRows = 8;  // of a task

// What a side of `out` px is made from, of one of `in` px: the same number of taps for each, those
// outside the filter 0.
class Filter {
 public:
  Filter(int in, int out) : in_(in), scale_(double(in) / out) {
    const double support = std::max(scale_, 1.0);
    count_ = 2 * int(std::ceil(support)) + 1;
    if (count_ > in) throw Refusal("an image of this size cannot be resized so much");
    first_.reserve(size_t(out));
    weights_.reserve(size_t(out) * size_t(count_));
    for (int x = 0; x < out; x++) add(x, support);
  }

  Taps taps() const {
    return {first_.data(), weights_.data(), count_, inside_};
  }

 private:
  void add(int x, double support) {
    const double centre = (x + 0.5) * scale_;
    const int begin = std::max(int(centre - support + 0.5), 0);
    const int end = std::min(int(centre + support + 0.5), in_);
    std::vector<double> weights;
    double sum = 0;
    for (int i = begin; i < end; i++) {
      const double distance = std::abs((i - centre + 0.5) * (1 / support));
      weights.push_back(distance < 1 ? 1 - distance : 0);
      sum += weights.back();
    }
    const int first = std::min(begin, in_ - count_);
    weights_.insert(weights_.end(), size_t(begin - first), 0);
    for (const double weight : weights)
      weights_.push_back(int32_t(0.5 + weight / sum * (1 << kWeightBits)));
    weights_.resize(size_t(x + 1) * size_t(count_));
    first_.push_back(first);
    if (first + count_ < in_) inside_ = x + 1;
  }

  int in_;
  double scale_;
  int count_ = 0;
  int inside_ = 0;
  std::vector<int32_t> first_, weights_;
};

void for_rows(int rows, void (*work)(const ResizeCall&, int, int), const ResizeCall& call) {
  Pool::shared().each((rows + kRows - 1) / kRows, [&](int task, int) {
    work(call, task * kRows, std::min((task + 1) * kRows, rows));
  });
}

}  // namespace

void resize(const Kernels& kernels, const uint8_t* image, int height, int width, int out_height,
            int out_width, uint8_t* out) {
  const Filter across(width, out_width), down(height, out_height);
  std::vector<uint8_t> narrow(size_t(height) * size_t(out_width) * 3);
  for_rows(height, kernels.resize_columns, {image, width, narrow.data(), out_width, across.taps()});
  for_rows(out_height, kernels.resize_rows, {narrow.data(), out_width, out, out_width, down.taps()});
}

}  // namespace anytime
