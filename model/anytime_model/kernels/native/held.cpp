#include "held.hpp"

#include <cstring>

namespace anytime {

Cache::Cache(const std::shared_ptr<const Plan>& plan)
    : model_(plan->model_),
      slots_(plan->slots_),
      map_(plan->pyramid_.level[kMapLevel]),
      stale_(plan->pyramid_) {
  if (!plan->holds_) throw Refusal("the plan holds no features");
  for (const AnytimeSlot& slot : slots_)
    buffers_.push_back(slot.storage == ANYTIME_HELD ? Buffer(plan->slot_bytes(slot)) : Buffer());
}

bool Cache::fits(const Plan& plan) const {
  const Grid map = plan.pyramid_.level[kMapLevel];
  return plan.model_ == model_ && map.height == map_.height && map.width == map_.width &&
         plan.slots_.size() == slots_.size() &&
         std::memcmp(plan.slots_.data(), slots_.data(), slots_.size() * sizeof(AnytimeSlot)) == 0;
}

int64_t Cache::bytes() const {
  int64_t total = stale_.bytes();
  for (const Buffer& buffer : buffers_) total += buffer.bytes();
  return total;
}

}  // namespace anytime
