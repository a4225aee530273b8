// Packed weights, for one instruction set. Immutable once plans use it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "types.hpp"

namespace anytime {

constexpr int kMostChannels = 16384;  // of a feature map

struct FreeMemory {
  int64_t mapped = 0;  // bytes of pages of its own; 0 for the allocator's memory
  void operator()(void*) const;
};

// Memory on cache lines, zero at first. Throws std::bad_alloc.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes);
  void* get() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<void, FreeMemory> data_;
  int64_t bytes_ = 0;
};

struct Conv {
  const Kernels* kernels;  // that it is packed for
  PackedConv packed;
  Buffer weights;
  std::vector<Group> groups;
  std::vector<std::unique_ptr<Conv>> points;  // of Winograd tiles, in place of weights
  std::vector<PackedConv> packed_points;
  int64_t macs;  // a site, by the definition
  int64_t bytes() const { return weights.bytes(); }
};

struct Norm {
  int channels;
  Buffer bias;   // padded to whole registers
  Buffer scale;  // of sums of bytes, as `bias`
  Buffer shift;
  float window[kWindow];
  uint64_t used;  // bits of the window that matter; 0 where there is no interpolation
};

struct Model {
  const Kernels* kernels;
  std::vector<std::unique_ptr<Conv>> convs;
  std::vector<std::unique_ptr<Norm>> norms;
};

// The instruction sets, fastest first.
struct Isa {
  const Kernels* kernels;
  bool (*works)();
};
extern const std::vector<Isa> kIsas;

std::unique_ptr<Conv> make_conv(const Kernels&, const float* oihw, int out_channels,
                                int in_channels, int kernel, int stride, int before);
// One of 1x1 is the factor of a normalisation, which does not count as multiply-adds.
std::unique_ptr<Conv> make_depthwise(const Kernels&, const float* weights, int channels, int kernel,
                                     int stride);
// A 3x3 convolution of stride 1 by Winograd F(4,3), for kernels that have it.
std::unique_ptr<Conv> make_winograd_conv(const Kernels&, const float* oihw, int out_channels,
                                      int in_channels);
// `scale` may be nullptr: all are 1.
std::unique_ptr<Norm> make_norm(const float* scale, const float* bias, const float* shift,
                                const float* window, int channels);

}  // namespace anytime
