// The features of a video's last frame, for the next one.
//
// Every layer is computed where the frame is fresh, and looks at what it held elsewhere. So features
// next to a change come from the frame before and not from an interpolation, the first stage need
// not be computed everywhere, and an unchanged part costs nothing. What is held is older than the
// frame only where nothing has changed, which the caller sees to; the reach of a change beyond what
// is fresh is left out.
//
// A stage that a frame does not come to leaves its features stale there, and makes them when it is
// done next. So it is after a stop in the middle of a stage: what was half made is made again.
#pragma once

#include <memory>
#include <vector>

#include "lists.hpp"
#include "model.hpp"
#include "plan.hpp"

namespace anytime {

class Cache {
 public:
  explicit Cache(const std::shared_ptr<const Plan>& plan);
  bool fits(const Plan&) const;  // a plan of the same model, size and slots
  void* buffer(int slot) const { return static_cast<char*>(memory_.get()) + offsets_[size_t(slot)]; }
  StaleCells& stale() { return stale_; }
  int64_t bytes() const;
  int64_t take() { return ++turn_; }  // for one more user, the only one from now on
  int64_t turn() const { return turn_; }

 private:
  std::shared_ptr<const Model> model_;
  std::vector<AnytimeSlot> slots_;
  std::vector<int64_t> offsets_;  // of each slot
  Buffer memory_;                 // of all, so that it lies in large pages
  Grid map_;
  StaleCells stale_;
  int64_t turn_ = 0;
};

}  // namespace anytime
