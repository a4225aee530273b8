// From a mask to the lists that kernels walk, for every resolution.
//
// Level 2 (1/4 of the image) holds the mask itself; every coarser level takes each second position
// of each second row, as the definition does. Three questions are answered once for all layers:
//
// Which pixels are active? There a convolution is computed.
//
// Which are needed? Those whose value some active pixel's computation reads: the active ones, their
// eight neighbours (3x3 windows; pooling reads among these), and what bilinear upsampling to a
// needed pixel of any finer level reads. This is exact, not a margin: a coarse pixel may be needed
// far from every active coarse one. Elsewhere buffers hold whatever they held.
//
// Needed and not active pixels are filled by interpolation; for each, which of the 49 pixels around
// it are active? Those active ones must keep their values before ReLU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "types.hpp"

namespace anytime {

constexpr int kLevels = 6;
constexpr int kMapLevel = 2;

class LevelLists {
 public:
  void reserve(Grid grid);
  void clear();
  void add_active(int y, int x);
  static int64_t bytes_for(Grid grid);

  Sites active() const;
  Sites needed() const;
  Sites to_fill() const;
  // Active pixels under a bit of the window, over all pixels to fill.
  int64_t neighbours(uint64_t used) const;

 private:
  friend class MaskLists;
  void add_fill(int y, int x, uint64_t around);
  void add_needed(int y, int x);

  Grid grid_;
  std::vector<int32_t> active_at_, active_twice_, active_yx_;
  std::vector<int32_t> needed_at_, needed_yx_;
  std::vector<int32_t> fill_at_, fill_yx_;
  std::vector<uint64_t> around_;
  std::vector<uint8_t> keep_, never_;
  int64_t histogram_[kWindow];
};

class MaskLists {
 public:
  explicit MaskLists(const Grid (&grids)[kLevels]);
  // `active`: one byte a pixel of level 2.
  void build(const uint8_t* active);
  const LevelLists& level(int l) const { return levels_[l]; }
  // What they take, at most, before any is made.
  static int64_t bytes_for(const Grid (&grids)[kLevels]);

 private:
  struct Map {  // one byte a pixel, with a border of kRadius
    int pitch = 0;
    std::vector<uint8_t> at;
    uint8_t& operator()(int y, int x) { return at[std::size_t(y + kRadius) * pitch + x + kRadius]; }
  };
  void need_sources(int fine, int coarse);
  uint64_t around(Map&, int y, int x) const;

  Grid grids_[kLevels];
  LevelLists levels_[kLevels];
  Map active_[kLevels], needed_[kLevels], keep_[kLevels];
};

// Every pixel of every level but the image's, for stages without a mask.
class FullLists {
 public:
  explicit FullLists(const Grid (&grids)[kLevels]);
  const LevelLists& level(int l) const { return levels_[l]; }
  static int64_t bytes_for(const Grid (&grids)[kLevels]);

 private:
  LevelLists levels_[kLevels];
};

}  // namespace anytime
