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
// A run that holds features (held.hpp) has them everywhere but where they are stale. What is stale
// takes the place of what is needed.
//
// Needed and not active pixels are interpolated; for each, which of the 49 pixels around
// it are active? Those active ones must keep their values before ReLU. Only the taps are asked for
// that some layer looks at: with a lambda near 3 four or eight of the 49.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "types.hpp"

namespace anytime {

constexpr int kLevels = 6;
constexpr int kMapLevel = 2;

// The padded image's size and its halvings.
struct Pyramid {
  Grid level[kLevels];
  Pyramid(int height, int width) {
    for (int l = 0; l < kLevels; l++) level[l] = {height >> l, width >> l};
  }
};

// Where the held features of each stage and level have to be made anew.
class StaleCells {
 public:
  static constexpr int kMostStages = 8;
  explicit StaleCells(const Pyramid&);  // everywhere
  void mark(const uint8_t* fresh);      // one byte a pixel of level 2; nullptr: everywhere
  void made(int stage);
  bool at(int level, int64_t pixel, int stage) const { return flags_[level][pixel] >> stage & 1; }
  int64_t bytes() const;

 private:
  Pyramid pyramid_;
  std::vector<uint8_t> flags_[kLevels];  // a bit for each stage
};

class LevelLists {
 public:
  explicit LevelLists(Grid grid = {});
  static int64_t bytes_for(Grid grid);

  void set_all();  // every pixel is active
  Sites active() const;
  Sites needed() const;
  Sites to_interpolate() const;
  // Active pixels under a bit of the window, over all pixels to interpolate.
  int64_t neighbours(uint64_t used) const;

 private:
  friend class MaskLists;
  // Where pixels are, in their three spellings (see Sites); those not needed stay empty.
  struct List {
    std::vector<int32_t> at, twice, yx;
    int count = 0;
  };

  Grid grid_;
  List active_, needed_, interpolated_;
  std::vector<uint64_t> around_;
  std::vector<uint8_t> keep_, never_;
  int64_t histogram_[kWindow] = {};
};

class MaskLists {
 public:
  // `used`: for each level the bits of the window that some layer looks at.
  // `holds`: runs hold features, and the first stage has lists of its own.
  MaskLists(const Pyramid&, const uint64_t* used, bool holds);
  static int64_t bytes_for(const Pyramid&, bool holds);

  // `active`: one byte a pixel of level 2, 0 or 1.
  void build(const uint8_t* active);
  // The same for a stage of a run that holds features.
  void build(const uint8_t* active, const StaleCells&, int stage);
  // For its first stage, where all that is stale is computed: at level 2 whole Winograd tiles, at
  // level 1 what the windows of those reach.
  void build_first(const StaleCells&);
  const LevelLists& level(int l) const { return levels_[l]; }

 private:
  // One byte a pixel, with a border of kRadius and a byte at the end, as 8 are read where 7 count.
  struct Map {
    int pitch = 0;
    std::vector<uint8_t> at;
    explicit Map(Grid grid = {});
    uint8_t* row(int y) { return at.data() + std::size_t(y + kRadius) * pitch + kRadius; }
  };
  void find_active(int level, const uint8_t* active);
  void find_needed(int level);
  void find_to_interpolate(int level);
  void find_stale(int level, const StaleCells&, int stage);
  void list_first(int level);

  Pyramid pyramid_;
  uint64_t used_[kLevels];
  LevelLists levels_[kLevels];
  Map active_[kLevels], needed_[kLevels], keep_[kLevels];
  std::vector<uint8_t> wide_;  // a row's scratch
};

// Every pixel of every level but the image's, for stages without a mask.
class FullLists {
 public:
  explicit FullLists(const Pyramid&);
  static int64_t bytes_for(const Pyramid&);
  const LevelLists& level(int l) const { return levels_[l]; }

 private:
  LevelLists levels_[kLevels];
};

}  // namespace anytime
