// Walking a plan: which buffers and lists an operation works on, and how it is shared out.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "plan.hpp"
#include "pool.hpp"

namespace anytime {
namespace {

// One piece of an operation, between two looks at the clock, is at most about so many
// multiply-adds for each float of a register: two milliseconds on two cores with AVX-512.
constexpr int64_t kPieceMacs = 12'000'000;
constexpr int kTasksPerThread = 6;
constexpr int kLeastTask = 48;  // sites
// Weights up to this stay in a core's cache while it goes through all groups of a few sites.
constexpr int64_t kCachedWeights = 256 << 10;

using Clock = std::chrono::steady_clock;

}  // namespace

Run::Run(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)), mask_lists_(plan_->pyramid_) {
  for (const AnytimeSlot& slot : plan_->slots_)
    own_.push_back(slot.per_run ? Buffer(plan_->slot_bytes(slot)) : Buffer());
  const size_t pixels = size_t(plan_->pyramid_.level[kMapLevel].pixels());
  active_.resize(pixels);
  confidence_.resize(pixels);
  measure_.resize(pixels);
}

void* Run::buffer(int slot) const {
  return plan_->slots_[slot].per_run ? own_[slot].get() : plan_->scratch_[slot].get();
}

const LevelLists& Run::lists(int level) const {
  return masked_ ? mask_lists_.level(level) : plan_->full_.level(level);
}

Sites Run::sites(const AnytimeOp& op) const {
  const LevelLists& all = lists(plan_->slots_[op.out].level);
  if (op.kind == ANYTIME_FILL) return all.to_fill();
  return op.where == ANYTIME_ACTIVE ? all.active() : all.needed();
}

template <class Body>
void Run::share(int first, int last, int least, const Body& body) const {
  Pool& pool = Pool::shared();
  const int wanted = (last - first) / (pool.threads() * kTasksPerThread) + 1;
  const int size = (std::max(wanted, least) + 23) / 24 * 24;
  const int tasks = (last - first + size - 1) / size;
  pool.each(tasks, [&](int task) {
    const int begin = first + task * size;
    body(begin, std::min(begin + size, last));
  });
}

void Run::start(const uint8_t* bytes, const float* floats, int height, int width,
                const float* scale, const float* offset) {
  const Grid& grid = plan_->pyramid_.level[0];
  constexpr int kMultiple = 1 << (kLevels - 1);
  if (height < 1 || width < 1 || height > grid.height || width > grid.width ||
      height <= grid.height - kMultiple || width <= grid.width - kMultiple)
    throw Refusal("the image's size does not belong to this plan");
  ImageCall call{bytes, floats, height, width, grid, plan_->slots_[kImageSlot].channels,
                 buffer(kImageSlot), {}, {}};
  if (bytes != nullptr)
    for (int k = 0; k < 3; k++) call.scale[k] = scale[k], call.offset[k] = offset[k];
  share(0, grid.height, 1, [&](int a, int b) { plan_->kernels().image(call, a, b); });
  masked_ = false;
  std::fill(active_.begin(), active_.end(), uint8_t(1));
  stage_ = op_ = first_ = 0;
  macs_ = 0;
}

bool Run::advance(int64_t slice_us) {
  if (stage_ >= ANYTIME_STAGES) throw Refusal("the last map has been made, or there is no image");
  const auto deadline = Clock::now() + std::chrono::microseconds(slice_us);
  while (op_ < plan_->ends_[stage_]) {
    const AnytimeOp& op = plan_->ops_[op_];
    const int count = sites(op).count;
    const int last = std::min(first_ + piece(op), count);
    if (first_ < last) step(op, first_, last);
    first_ = last;
    if (last == count) op_++, first_ = 0;
    if (slice_us > 0 && op_ < plan_->ends_[stage_] && Clock::now() >= deadline) return true;
  }
  stage_++;
  return false;
}

int Run::piece(const AnytimeOp& op) const {
  const Kernels& kernels = plan_->kernels();
  const int64_t most = kPieceMacs * kernels.lanes * kernels.depth;
  const int64_t cost = op.kind == ANYTIME_CONV ? plan_->model_->convs[op.conv]->macs
                                               : 64 * plan_->slots_[op.out].channels;
  return int(std::max<int64_t>(kLeastTask, most / cost));
}

void Run::step(const AnytimeOp& op, int first, int last) {
  switch (op.kind) {
    case ANYTIME_CONV: return conv(op, first, last);
    case ANYTIME_FILL: return fill(op, first, last);
    case ANYTIME_MIX: return mix(op, first, last);
  }
}

void Run::conv(const AnytimeOp& op, int first, int last) {
  const Conv& conv = *plan_->model_->convs[op.conv];
  const AnytimeSlot& out = plan_->slots_[op.out];
  const ConvCall call{
      &conv.packed,
      buffer(op.in[0]),
      plan_->pyramid_.level[plan_->slots_[op.in[0]].level].pitch(),
      sites(op),
      buffer(op.out),
      op.residual < 0 ? nullptr : buffer(op.residual),
      op.keep ? static_cast<float*>(plan_->kept_.get()) : nullptr,
      op.norm < 0 ? nullptr
                  : static_cast<const float*>(plan_->model_->norms[op.norm]->bias.get()),
      op.relu != 0,
  };
  const auto kernel = out.floats ? plan_->kernels().conv_to_float : plan_->kernels().conv;
  const int groups = conv.packed.group_count;
  macs_ += conv.macs * (last - first);
  if (conv.bytes() <= kCachedWeights || groups == 1) {
    share(first, last, kLeastTask, [&](int begin, int end) {
      for (int g = 0; g < groups; g++) kernel(call, g, begin, end);
    });
    return;
  }
  // One group after another, so that its weights stay in the cache.
  Pool& pool = Pool::shared();
  const int wanted = (last - first) * groups / (pool.threads() * kTasksPerThread) + 1;
  const int size = std::min((std::max(wanted, kLeastTask) + 23) / 24 * 24, last - first);
  const int chunks = (last - first + size - 1) / size;
  pool.each(chunks * groups, [&](int task) {
    const int begin = first + task % chunks * size;
    kernel(call, task / chunks, begin, std::min(begin + size, last));
  });
}

void Run::fill(const AnytimeOp& op, int first, int last) {
  const Norm& norm = *plan_->model_->norms[op.norm];
  const AnytimeSlot& out = plan_->slots_[op.out];
  const FillCall call{
      sites(op),
      out.channels,
      plan_->pyramid_.level[out.level].pitch(),
      static_cast<const float*>(plan_->kept_.get()),
      buffer(op.out),
      op.residual < 0 ? nullptr : buffer(op.residual),
      static_cast<const float*>(norm.shift.get()),
      norm.window,
      norm.used,
      op.relu != 0,
  };
  if (first == 0) macs_ += lists(out.level).neighbours(norm.used) * out.channels;
  share(first, last, kLeastTask, [&](int a, int b) { plan_->kernels().fill(call, a, b); });
}

void Run::mix(const AnytimeOp& op, int first, int last) {
  const AnytimeSlot& out = plan_->slots_[op.out];
  MixCall call{};
  call.sites = sites(op);
  call.channels = plan_->slots_[op.in[0]].channels;
  call.terms = op.inputs;
  call.pool = op.pool != 0;
  for (int t = 0; t < op.inputs; t++) {
    const int level = plan_->slots_[op.in[t]].level;
    call.term[t] = {buffer(op.in[t]), plan_->pyramid_.level[level], level - out.level + (op.pool != 0)};
  }
  call.out = buffer(op.out);
  call.out_channels = out.channels;
  call.first = op.first;
  call.kept = op.keep ? static_cast<float*>(plan_->kept_.get()) : nullptr;
  if (op.norm >= 0)
    call.bias = static_cast<const float*>(plan_->model_->norms[op.norm]->bias.get());
  call.relu = op.relu != 0;
  const auto kernel = out.floats ? plan_->kernels().mix_floats : plan_->kernels().mix;
  share(first, last, kLeastTask, [&](int a, int b) { kernel(call, a, b); });
}

void Run::settle(Measure measure, bool decide, float least, float most) {
  const AnytimeSlot& map = plan_->slots_[kMapSlot];
  const Sites where = lists(kMapLevel).active();
  const ConfidenceCall call{static_cast<const float*>(buffer(kMapSlot)),
                            map.channels,
                            where,
                            plan_->pyramid_.level[kMapLevel].width,
                            measure == Measure::maximum,
                            measure == Measure::entropy,
                            confidence_.data(),
                            measure_.data()};
  share(0, where.count, kLeastTask, [&](int a, int b) { plan_->kernels().confidence(call, a, b); });
  if (!decide) return;
  for (size_t i = 0; i < active_.size(); i++)
    active_[i] = uint8_t(active_[i] && measure_[i] >= least && measure_[i] <= most);
  mask_lists_.build(active_.data());
  masked_ = true;
}

void Run::mask(const uint8_t* active) {
  for (size_t i = 0; i < active_.size(); i++) active_[i] = uint8_t(active_[i] && active[i]);
  mask_lists_.build(active_.data());
  masked_ = true;
}

void Run::read(float* map, float* confidence, uint8_t* active) const {
  const Grid& grid = plan_->pyramid_.level[kMapLevel];
  const int64_t row = int64_t(grid.width) * plan_->slots_[kMapSlot].channels;
  const float* from = static_cast<const float*>(buffer(kMapSlot));
  const int64_t channels = plan_->slots_[kMapSlot].channels;
  if (map != nullptr)
    for (int y = 0; y < grid.height; y++)
      std::memcpy(map + y * row, from + (int64_t(y + 1) * grid.pitch() + 1) * channels,
                  size_t(row) * sizeof(float));
  if (confidence != nullptr)
    std::memcpy(confidence, confidence_.data(), confidence_.size() * sizeof(float));
  if (active != nullptr) std::memcpy(active, active_.data(), active_.size());
}

}  // namespace anytime
