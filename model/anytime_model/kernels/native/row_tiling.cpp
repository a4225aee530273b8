#include "row_tiling.hpp"

#include <algorithm>
#include <string>

#include "plan.hpp"

namespace anytime {
namespace {

// Pixels of the image in a tile: 96 rows of 1024. With fewer, threads wait for each other more.
constexpr int64_t kTilePixels = 96 << 10;

void require(bool held, int index, const char* what) {
  if (!held) throw Refusal("operation " + std::to_string(index) + ": " + what);
}

int rounded_up(int a, int b) { return (a + b - 1) / b; }

}  // namespace

RowTiling::RowTiling(const Model& model, const Pyramid& pyramid,
                     const std::vector<AnytimeSlot>& slots,
             const std::vector<AnytimeOp>& ops, int first, int end)
    : window_rows_(slots.size()) {
  for (int i = first; i < end; i++) {
    if (i == first || !ops[i - 1].fused)
      steps_.push_back({i, i + 1, pyramid.level[slots[ops[i].out].level].height});
    steps_.back().end = i + 1;
    add_uses(model, slots, ops[i], i, int(steps_.size()) - 1);
  }
  const int level = slots[ops[end - 1].out].level;
  const Grid grid = pyramid.level[level];
  size_ = int(std::max<int64_t>(1, (kTilePixels >> (2 * level)) / grid.width));
  count_ = rounded_up(grid.height, size_);
  find_windows(slots);
}

void RowTiling::add_uses(const Model& model, const std::vector<AnytimeSlot>& slots,
                     const AnytimeOp& op, int index, int step) {
  require(op.kind != ANYTIME_INTERPOLATE && !op.keep, index, "masked operations are not tiled");
  const auto written = [&](int slot) {
    return std::any_of(uses_.begin(), uses_.end(),
                       [&](const Use& u) { return u.slot == slot && u.writes; });
  };
  const auto read = [&](int slot, Use use) {
    require(slots[slot].storage != ANYTIME_WINDOW || written(slot), index,
            "it reads a window that nothing has written");
    uses_.push_back(use);
  };
  for (int t = 0; t < op.inputs; t++) {
    const int slot = op.in[t];
    if (op.kind == ANYTIME_CONV) {
      const PackedConv& conv = model.convs[op.conv]->packed;
      read(slot, {step, slot, false, conv.stride, conv.before, conv.kernel - 1 - conv.before});
      continue;
    }
    require(slots[slot].level == slots[op.out].level - (op.pool != 0), index,
            "upsampling is not tiled");
    read(slot, op.pool ? Use{step, slot, false, 2, 0, 1} : Use{step, slot, false});
  }
  if (op.residual >= 0) read(op.residual, {step, op.residual, false});
  uses_.push_back({step, op.out, true});
}

void RowTiling::due(int tile, std::vector<int>& rows) const {
  const int last = int(steps_.size()) - 1;
  rows.assign(steps_.size(), 0);
  if (tile + 1 >= count_) {
    for (int i = 0; i <= last; i++) rows[i] = steps_[i].height;
    return;
  }
  rows[last] = (tile + 1) * size_;
  for (int i = last - 1; i >= 0; i--) {
    for (const Use& mine : uses_)
      for (const Use& later : uses_) {
        if (mine.step != i || later.step <= i || mine.slot != later.slot) continue;
        const int to = rows[later.step];
        if (to == 0) continue;
        if (mine.writes)
          rows[i] = std::max(rows[i], later.stride * (to - 1) + later.below + 1);
        else if (later.writes)
          rows[i] = std::max(rows[i], rounded_up(to + mine.above, mine.stride));
      }
    rows[i] = std::min(rows[i], steps_[i].height);
  }
}

RowTiling::Span RowTiling::span(int slot, int step, int to, const std::vector<int>& done) const {
  const int height = steps_[step].height;
  int low = done[step];
  for (const Use& use : uses_)
    if (use.slot == slot && done[use.step] < steps_[use.step].height)
      low = std::min(low, use.stride * done[use.step] - use.above);
  return {std::max(0, low + 1), to == height ? height + 2 : to + 1};
}

// Room for twice what must be there at a time, so that it is seldom moved.
void RowTiling::find_windows(const std::vector<AnytimeSlot>& slots) {
  std::vector<int> done(steps_.size(), 0), next;
  for (int tile = 0; tile < count_; tile++) {
    due(tile, next);
    for (int i = 0; i < int(steps_.size()); i++) {
      for (const Use& use : uses_) {
        if (use.step != i || !use.writes || slots[use.slot].storage != ANYTIME_WINDOW) continue;
        const Span needed = span(use.slot, i, next[i], done);
        window_rows_[use.slot] = std::max(
            window_rows_[use.slot],
            std::min(2 * (needed.high - needed.low), steps_[i].height + 2));
      }
      done[i] = next[i];
    }
  }
}

}  // namespace anytime
