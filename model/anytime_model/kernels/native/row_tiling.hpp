// Row tiling: several operations done on a few rows at a time.
//
// Stage 1 has the widest maps of the network. Done one after another, every operation would write its
// map to memory and the next would read it back. In row tiling, a few rows go through all of them
// while they are in the cache, then the next few rows; the sums and their order stay the same.
//
// How far a step (an operation, or a fused group) must have come before a later one may do
// its rows follows from what they share:
//   - the earlier one writes what the later one reads: all rows under the later one's windows;
//   - the earlier one reads what the later one overwrites: all rows whose windows end above it;
//   - both write: the same rows.
// So steps further ahead run some rows ahead, any program has such an order, and buffers may be
// used again within a tile as anywhere else.
//
// A slot in a window (ANYTIME_WINDOW) only ever holds the rows between the oldest that a step will
// read and the newest that one has written. Its first row moves down from tile to tile.
#pragma once

#include <vector>

#include "api.h"
#include "lists.hpp"
#include "model.hpp"

namespace anytime {

// Rows of a slot that one row y of a step touches: from stride * y - above to stride * y + below.
struct Use {
  int step;
  int slot;
  bool writes;
  int stride = 1, above = 0, below = 0;
};

struct Step {
  int first, end;  // operations
  int height;      // rows of what they put out
};

class RowTiling {
 public:
  // Of operations [first, end), checked one by one before.
  RowTiling(const Model&, const Pyramid&, const std::vector<AnytimeSlot>&,
        const std::vector<AnytimeOp>&, int first, int end);

  int first() const { return steps_.front().first; }
  int end() const { return steps_.back().end; }
  int count() const { return count_; }
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<Use>& uses() const { return uses_; }

  // How many rows each step has done when tile `tile` is done.
  void due(int tile, std::vector<int>& rows) const;
  // While `step` goes from done[step] rows to `to`: the stored rows [low, high) of a slot that it
  // writes which must be there. Row y is stored as y + 1, below a border.
  struct Span {
    int low, high;
  };
  Span span(int slot, int step, int to, const std::vector<int>& done) const;
  // Stored rows that a slot in a window needs room for.
  int window_rows(int slot) const { return window_rows_[slot]; }

 private:
  void add_uses(const Model&, const std::vector<AnytimeSlot>&, const AnytimeOp&, int index,
                int step);
  void find_windows(const std::vector<AnytimeSlot>&);

  std::vector<Step> steps_;
  std::vector<Use> uses_;
  std::vector<int> window_rows_;  // by slot
  int size_ = 1;                  // rows of the last step in a tile
  int count_ = 0;
};

// How far a run has come in its row tiling.
struct TilingProgress {
  int tile = 0, step = 0;
  std::vector<int> done, due;  // rows, by step
  std::vector<int> top;        // the first stored row that a slot's window holds
};

}  // namespace anytime
