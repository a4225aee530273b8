#include "held.hpp"

#include <cstring>

namespace anytime {

Cache::Cache(const std::shared_ptr<const Plan>& plan)
    : model_(plan->model_),
      slots_(plan->slots_),
      map_(plan->pyramid_.level[kMapLevel]),
      stale_(plan->pyramid_) {
  if (!plan->holds_) throw Refusal("the plan holds no features");
  constexpr int64_t kApart = 256;
  int64_t bytes = 0;
  for (const AnytimeSlot& slot : slots_) {
    offsets_.push_back(bytes);
    if (slot.storage == ANYTIME_HELD) bytes += (plan->slot_bytes(slot) + kApart) / kApart * kApart;
  }
  memory_ = Buffer(bytes);
}

bool Cache::fits(const Plan& plan) const {
  const Grid map = plan.pyramid_.level[kMapLevel];
  return plan.model_ == model_ && map.height == map_.height && map.width == map_.width &&
         plan.slots_.size() == slots_.size() &&
         std::memcmp(plan.slots_.data(), slots_.data(), slots_.size() * sizeof(AnytimeSlot)) == 0;
}

int64_t Cache::bytes() const { return memory_.bytes() + stale_.bytes(); }

}  // namespace anytime
