// Walking a plan: which buffers and lists an operation works on, and how it is shared out.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "held.hpp"
#include "plan.hpp"
#include "pool.hpp"

namespace anytime {
namespace {

// One piece of an operation, between two looks at the clock, is at most about so many
// multiply-adds for each float of a register: one millisecond on two cores with AVX-512.
constexpr int64_t kPieceMacs = 6'000'000;
constexpr int kTasksPerThread = 8;
constexpr int kLeastTask = kFusedSites;  // sites
// Weights up to this stay in a core's cache while it goes through all groups of a few sites.
constexpr int64_t kCachedWeights = 256 << 10;
constexpr int kCachedSites = 192;

using Clock = std::chrono::steady_clock;

struct Count {  // 0, 1, 2, ...
  int32_t at[kFusedSites];
  constexpr Count() : at{} {
    for (int i = 0; i < kFusedSites; i++) at[i] = i;
  }
};
constexpr Count kCount;

}  // namespace

Run::Run(std::shared_ptr<const Plan> plan)
    : plan_(std::move(plan)), mask_lists_(plan_->pyramid_, plan_->used_, plan_->holds_) {
  for (const AnytimeSlot& slot : plan_->slots_)
    own_.push_back(slot.storage == ANYTIME_RUN ? Buffer(plan_->slot_bytes(slot)) : Buffer());
  std::memset(own_[kImageSlot].get(), plan_->slots_[kImageSlot].zero,
              size_t(plan_->slot_bytes(plan_->slots_[kImageSlot])));  // its border, above all
  const size_t pixels = size_t(plan_->pyramid_.level[kMapLevel].pixels());
  active_.resize(pixels);
  confidence_.resize(pixels);
  measure_.resize(pixels);
}

void* Run::buffer(int slot, int worker) const {
  switch (plan_->slots_[slot].storage) {
    case ANYTIME_RUN: return own_[slot].get();
    case ANYTIME_LOCAL:
      return static_cast<char*>(local_[worker].get()) + plan_->local_offsets_[slot];
    case ANYTIME_WINDOW:  // where row 0 would be
      return static_cast<char*>(plan_->scratch_[slot].get()) -
             progress_.top[slot] * plan_->row_bytes(plan_->slots_[slot]);
    case ANYTIME_HELD: return cache_->buffer(slot);
    default: return plan_->scratch_[slot].get();
  }
}

// Where the values of the sites at hand are in a slot: side by side in a local one.
const int32_t* Run::at(int slot, const int32_t* global) const {
  return plan_->slots_[slot].storage == ANYTIME_LOCAL ? kCount.at : global;
}

const LevelLists& Run::lists(int level) const {
  return masked_ || cache_ != nullptr ? mask_lists_.level(level) : plan_->full_.level(level);
}

Sites Run::sites(const AnytimeOp& op) const {
  const LevelLists& all = lists(plan_->slots_[op.out].level);
  if (op.kind == ANYTIME_INTERPOLATE) return all.to_interpolate();
  if (op.where == ANYTIME_EVERYWHERE)
    return plan_->full_.level(plan_->slots_[op.out].level).active();
  return op.where == ANYTIME_ACTIVE ? all.active() : all.needed();
}

// Three quarters in large tasks and the rest in small ones, so that the threads end together.
template <class Body>
void Run::share(int first, int last, int least, const Body& body) const {
  Pool& pool = Pool::shared();
  const int wanted = (last - first) / (pool.threads() * kTasksPerThread) + 1;
  const int large = (std::max(wanted, least) + 23) / 24 * 24;
  const int small = std::max(large / 4 / 24 * 24, std::min(24, least));
  const int of_large = (last - first) * 3 / 4 / large, fine = first + of_large * large;
  const int tasks = of_large + (last - fine + small - 1) / small;
  pool.each(tasks, [&](int task, int) {
    const bool is_large = task < of_large;
    const int begin = is_large ? first + task * large : fine + (task - of_large) * small;
    body(begin, is_large ? begin + large : std::min(begin + small, last));
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
  masked_ = measure_all_ = false;
  std::fill(active_.begin(), active_.end(), uint8_t(1));
  stage_ = op_ = first_ = exit_ = maps_ = 0;
  cache_.reset();
  listed_ = -1;
  progress_ = {};
  macs_ = 0;
}

bool Run::advance(int exit, int64_t slice_us) {
  const int exits = int(plan_->ends_.size());
  if (stage_ < 0 || stage_ >= exits)
    throw Refusal("the last map has been made, or there is no image");
  if (exit == 0) exit = exit_ == 0 ? stage_ + 1 : exit_;
  if (exit_ != 0 && exit != exit_) throw Refusal("another exit is being made");
  if (exit <= stage_ || exit > exits) throw Refusal("no such exit can be made next");
  if (exit > stage_ + 1 && plan_->heads_.empty()) throw Refusal("no exit may be left out");
  if (plan_->holds_ && (cache_ == nullptr || cache_->turn() != turn_))
    throw Refusal("the features are held in no cache, or another run has taken it");
  exit_ = exit;
  const auto deadline = Clock::now() + std::chrono::microseconds(slice_us);
  for (bool made = false; !made;) {
    made = stage_ + 1 == exit;
    begin_stage();
    const int end_of_stage = made ? plan_->ends_[stage_] : plan_->heads_[stage_];
    while (op_ < end_of_stage) {
      if (const RowTiling* tiling = plan_->tiling_at(op_)) {
        if (tile_piece(*tiling)) op_ = tiling->end(), first_ = 0;
      } else {
        const int end = end_of_group(op_), count = sites(plan_->ops_[op_]).count;
        first_ = piece(op_, end, first_, count);
        if (first_ == count) op_ = end, first_ = 0;
      }
      const bool more = !made || op_ < end_of_stage;
      if (slice_us > 0 && more && Clock::now() >= deadline) return true;
    }
    if (cache_ != nullptr) cache_->stale().made(stage_);
    op_ = plan_->ends_[stage_++];
  }
  exit_ = 0;
  maps_++;
  return false;
}

void Run::hold(std::shared_ptr<Cache> cache, const uint8_t* fresh) {
  if (cache != nullptr) {
    if (stage_ != 0 || op_ != 0 || first_ != 0) throw Refusal("a cache comes right after the image");
    if (!cache->fits(*plan_)) throw Refusal("the cache is of another plan");
    turn_ = cache->take();
    cache->stale().mark(fresh);
  }
  cache_ = std::move(cache);
  listed_ = -1;
}

// Where features are held, the lists of a stage follow from the mask and from what is stale.
void Run::begin_stage() {
  if (cache_ == nullptr || listed_ == stage_) return;
  listed_ = stage_;
  if (stage_ == 0) mask_lists_.build_first(cache_->stale());
  else mask_lists_.build(active_.data(), cache_->stale(), stage_);
}

void Run::shrink_mask() {
  masked_ = true;
  if (cache_ == nullptr) mask_lists_.build(active_.data());
}

int Run::operation() const {
  const RowTiling* tiling = op_ < int(plan_->ops_.size()) ? plan_->tiling_at(op_) : nullptr;
  return tiling != nullptr ? tiling->steps()[progress_.step].first : op_;
}

// Do what can be done of sites [first, last) before another look at the clock. Returns how far.
int Run::piece(int op, int end, int first, int last) {
  const int64_t most = kPieceMacs * plan_->kernels().lanes * plan_->kernels().depth;
  int64_t each = 0;
  for (int i = op; i < end; i++) each += cost(plan_->ops_[i]);
  const int size = int(std::max<int64_t>(1, most / each / kLeastTask)) * kLeastTask;
  const int to = std::min(first + size, last);
  if (first < to) step(op, end, first, to);
  return to;
}

// One piece of one step of one row tile; whether it was the last. Nothing is masked there, so that
// sites are rows side by side.
bool Run::tile_piece(const RowTiling& tiling) {
  const int steps = int(tiling.steps().size());
  if (first_ == 0 && progress_.step == 0 && progress_.tile == 0) {
    progress_.done.assign(steps, 0);
    progress_.top.assign(plan_->slots_.size(), 0);
    tiling.due(0, progress_.due);
  }
  const Step& step = tiling.steps()[progress_.step];
  const int width = plan_->pyramid_.level[plan_->slots_[plan_->ops_[step.first].out].level].width;
  int& done = progress_.done[progress_.step];
  const int due = progress_.due[progress_.step];
  if (first_ == 0) {
    move_windows(tiling);
    first_ = done * width;
  }
  first_ = piece(step.first, step.end, first_, due * width);
  if (first_ < due * width) return false;
  done = due;
  first_ = 0;
  if (++progress_.step < steps) return false;
  progress_.step = 0;
  if (++progress_.tile < tiling.count()) {
    tiling.due(progress_.tile, progress_.due);
    return false;
  }
  progress_.tile = 0;
  return true;
}

// Before a step: make room in the windows that it writes, and lay their borders.
void Run::move_windows(const RowTiling& tiling) {
  const int step = progress_.step, done = progress_.done[step], due = progress_.due[step];
  for (const Use& use : tiling.uses()) {
    const AnytimeSlot& slot = plan_->slots_[use.slot];
    if (use.step != step || !use.writes || slot.storage != ANYTIME_WINDOW || done == due) continue;
    const int64_t row = plan_->row_bytes(slot);
    const RowTiling::Span needed = tiling.span(use.slot, step, due, progress_.done);
    char* window = static_cast<char*>(plan_->scratch_[use.slot].get());
    int& top = progress_.top[use.slot];
    if (needed.high > top + tiling.window_rows(use.slot)) {
      const int written = std::min(needed.high, top + tiling.window_rows(use.slot));
      std::memmove(window, window + (needed.low - top) * row, (written - needed.low) * row);
      top = needed.low;
    }
    const int last = tiling.steps()[step].height + 1;
    if (done == 0 && top == 0) std::memset(window, 0, row);
    if (needed.high == last + 1) std::memset(window + (last - top) * row, 0, row);
  }
}

int Run::end_of_group(int op) const {
  while (plan_->ops_[op].fused) op++;
  return op + 1;
}

// Of an operation at one site, in multiply-adds of a convolution; others' are slower.
int64_t Run::cost(const AnytimeOp& op) const {
  if (op.kind != ANYTIME_CONV) return 64 * plan_->slots_[op.out].channels;
  const Conv& conv = *plan_->model_->convs[op.conv];
  const PackedConv& packed = conv.packed;
  if (packed.depthwise) return int64_t(4) * packed.kernel * packed.kernel * packed.in_channels;
  return conv.macs * plan_->kernels().depth / conv.kernels->depth;
}

void Run::step(int op, int end, int first, int last) {
  for (int i = op; i < end; i++)
    if (plan_->ops_[i].kind == ANYTIME_CONV)
      macs_ += plan_->model_->convs[plan_->ops_[i].conv]->macs * (last - first);
  if (end - op > 1) return fused(op, end, first, last);
  switch (plan_->ops_[op].kind) {
    case ANYTIME_CONV: return conv(plan_->ops_[op], first, last);
    case ANYTIME_INTERPOLATE: return interpolate(plan_->ops_[op], first, last);
    case ANYTIME_WEIGHTED_SUM: return weighted_sum(plan_->ops_[op], first, last);
  }
}

void Run::fused(int op, int end, int first, int last) {
  Pool& pool = Pool::shared();
  const int workers = pool.threads();
  while (int(local_.size()) < workers) local_.emplace_back(plan_->local_bytes_);
  const Sites all = sites(plan_->ops_[op]);
  const Kernels& kernels = plan_->kernels();
  const int tasks = (last - first + kFusedSites - 1) / kFusedSites;
  pool.each(tasks, [&](int task, int worker) {
    const int begin = first + task * kFusedSites;
    const int count = std::min(kFusedSites, last - begin);
    const Sites here = all.from(begin);
    for (int i = op; i < end; i++) {
      const AnytimeOp& one = plan_->ops_[i];
      if (one.kind == ANYTIME_WEIGHTED_SUM) {
        const auto sum =
            plan_->slots_[one.out].floats ? kernels.weighted_sum_floats : kernels.weighted_sum;
        sum(weighted_sum_call(one, here, worker), 0, count);
        continue;
      }
      const ConvCall call = conv_call(one, here, worker);
      if (call.conv->depthwise) {
        kernels.depthwise(call, 0, count);
        continue;
      }
      if (call.conv->points != nullptr) {
        char* local = static_cast<char*>(local_[worker].get());
        kernels.conv_winograd(call, 0, count,
                              reinterpret_cast<float*>(local + plan_->winograd_offset_));
        continue;
      }
      const auto kernel = conv_kernel(one);
      for (int g = 0; g < call.conv->group_count; g++) kernel(call, g, 0, count);
    }
  }, workers);
}

ConvCall Run::conv_call(const AnytimeOp& op, const Sites& sites, int worker) const {
  const Conv& conv = *plan_->model_->convs[op.conv];
  ConvCall call{};
  call.conv = &conv.packed;
  call.in = buffer(op.in[0], worker);
  call.in_grid = plan_->pyramid_.level[plan_->slots_[op.in[0]].level];
  call.from = conv.packed.stride == 2 ? sites.twice : at(op.in[0], sites.at);
  call.sites = sites;
  call.sites.at = at(op.out, sites.at);
  call.out = buffer(op.out, worker);
  call.out_pitch = plan_->slots_[op.out].channels;
  call.residual_scale = op.residual_scale;
  if (op.residual >= 0) call.residual = buffer(op.residual, worker);
  if (op.keep) call.kept = static_cast<float*>(plan_->kept_.get());
  if (op.norm >= 0) {
    call.bias = static_cast<const float*>(plan_->model_->norms[op.norm]->bias.get());
    call.scale = static_cast<const float*>(plan_->model_->norms[op.norm]->scale.get());
  }
  call.activation = Activation(op.activation);
  return call;
}

auto Run::conv_kernel(const AnytimeOp& op) const -> decltype(Kernels::conv) {
  const Kernels& kernels = *plan_->model_->convs[op.conv]->kernels;
  return plan_->slots_[op.out].floats ? kernels.conv_to_float : kernels.conv;
}

void Run::conv(const AnytimeOp& op, int first, int last) {
  const ConvCall call = conv_call(op, sites(op), 0);
  if (call.conv->depthwise) {
    share(first, last, kLeastTask, [&](int a, int b) { plan_->kernels().depthwise(call, a, b); });
    return;
  }
  const auto kernel = conv_kernel(op);
  const int groups = call.conv->group_count;
  if (plan_->model_->convs[op.conv]->bytes() <= kCachedWeights || groups == 1) {
    share(first, last, kLeastTask, [&](int begin, int end) {
      for (int a = begin; a < end; a += kCachedSites)
        for (int g = 0; g < groups; g++) kernel(call, g, a, std::min(a + kCachedSites, end));
    });
    return;
  }
  // One group after another, so that its weights stay in the cache.
  Pool& pool = Pool::shared();
  const int wanted = (last - first) * groups / (pool.threads() * kTasksPerThread) + 1;
  const int size = std::min((std::max(wanted, kLeastTask) + 23) / 24 * 24, last - first);
  const int chunks = (last - first + size - 1) / size;
  pool.each(chunks * groups, [&](int task, int) {
    const int begin = first + task % chunks * size;
    kernel(call, task / chunks, begin, std::min(begin + size, last));
  });
}

void Run::interpolate(const AnytimeOp& op, int first, int last) {
  const Norm& norm = *plan_->model_->norms[op.norm];
  const AnytimeSlot& out = plan_->slots_[op.out];
  const InterpolationCall call{
      sites(op),
      out.channels,
      plan_->pyramid_.level[out.level].pitch(),
      static_cast<const float*>(plan_->kept_.get()),
      buffer(op.out),
      op.residual < 0 ? nullptr : buffer(op.residual),
      op.residual_scale,
      static_cast<const float*>(norm.shift.get()),
      norm.window,
      norm.used,
      Activation(op.activation),
  };
  if (first == 0) macs_ += lists(out.level).neighbours(norm.used) * out.channels;
  const Kernels& kernels = out.floats ? *plan_->kernels().whole : plan_->kernels();
  share(first, last, kLeastTask, [&](int a, int b) { kernels.interpolate(call, a, b); });
}

WeightedSumCall Run::weighted_sum_call(const AnytimeOp& op, const Sites& sites, int worker) const {
  const AnytimeSlot& out = plan_->slots_[op.out];
  WeightedSumCall call{};
  call.sites = sites;
  call.sites.at = at(op.out, sites.at);
  call.channels = plan_->slots_[op.in[0]].channels;
  call.terms = op.inputs;
  call.pool = op.pool != 0;
  for (int t = 0; t < op.inputs; t++) {
    const int level = plan_->slots_[op.in[t]].level;
    call.term[t] = {buffer(op.in[t]), plan_->pyramid_.level[level],
                    level - out.level + (op.pool != 0), op.scale[t],
                    plan_->slots_[op.in[t]].floats != 0};
  }
  call.out = buffer(op.out, worker);
  call.out_channels = out.channels;
  call.first = op.first;
  if (op.keep) call.kept = static_cast<float*>(plan_->kept_.get());
  if (op.norm >= 0) {
    call.bias = static_cast<const float*>(plan_->model_->norms[op.norm]->bias.get());
    call.scale = static_cast<const float*>(plan_->model_->norms[op.norm]->scale.get());
  }
  call.activation = Activation(op.activation);
  return call;
}

void Run::weighted_sum(const AnytimeOp& op, int first, int last) {
  const WeightedSumCall call = weighted_sum_call(op, sites(op), 0);
  const auto kernel =
      plan_->slots_[op.out].floats ? plan_->kernels().weighted_sum_floats
                                   : plan_->kernels().weighted_sum;
  share(first, last, kLeastTask, [&](int a, int b) { kernel(call, a, b); });
}

void Run::settle(Measure measure, bool decide, float least, float most) {
  if (maps_ == 0) throw Refusal("there is no map yet");
  const AnytimeSlot& map = plan_->slots_[kMapSlot];
  const Sites where = (measure_all_ ? plan_->full_.level(kMapLevel) : lists(kMapLevel)).active();
  measure_all_ = false;
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
  shrink_mask();
}

// Nothing is masked before the first map, so it is put right afterwards.
void Run::apply_prior(const float* map, const uint8_t* active) {
  if (maps_ != 1 || masked_) throw Refusal("a prior comes right after the first map");
  const Grid& grid = plan_->pyramid_.level[kMapLevel];
  const int64_t channels = plan_->slots_[kMapSlot].channels;
  float* to = static_cast<float*>(buffer(kMapSlot));
  for (int y = 0; y < grid.height; y++)
    for (int x = 0; x < grid.width; x++) {
      const int64_t pixel = int64_t(y) * grid.width + x;
      active_[size_t(pixel)] = uint8_t(active[pixel] != 0);
      if (!active[pixel])
        std::memcpy(to + (int64_t(y + 1) * grid.pitch() + x + 1) * channels, map + pixel * channels,
                    size_t(channels) * sizeof(float));
    }
  shrink_mask();
  measure_all_ = true;
}

void Run::mask(const uint8_t* active) {
  if (maps_ == 0) throw Refusal("there is no map yet");
  for (size_t i = 0; i < active_.size(); i++) active_[i] = uint8_t(active_[i] && active[i]);
  shrink_mask();
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

void Run::read_slot(int index, float* values) const {
  if (maps_ == 0) throw Refusal("there is no map yet");
  if (index < 0 || index >= int(plan_->slots_.size())) throw Refusal("there is no such slot");
  const AnytimeSlot& slot = plan_->slots_[size_t(index)];
  const int64_t element = slot.floats ? int64_t(sizeof(float)) : plan_->kernels().element_size;
  if (slot.storage != ANYTIME_RUN || slot.level < kMapLevel || element < int64_t(sizeof(bf16)))
    throw Refusal("only features of the run that are no bytes can be read");
  const Grid& grid = plan_->pyramid_.level[slot.level];
  const auto channels = size_t(slot.channels);
  std::memset(values, 0, size_t(grid.pixels()) * channels * sizeof(float));
  const Sites needed = lists(slot.level).needed();
  for (int i = 0; i < needed.count; i++) {
    const int64_t y = needed.yx[i] >> 16, x = needed.yx[i] & 0xffff;
    float* to = values + size_t(y * grid.width + x) * channels;
    const char* from = static_cast<const char*>(buffer(index)) +
                       size_t(needed.at[i]) * channels * size_t(element);
    if (element == int64_t(sizeof(float))) {
      std::memcpy(to, from, channels * sizeof(float));
      continue;
    }
    for (size_t k = 0; k < channels; k++) {
      const uint32_t bits = uint32_t(reinterpret_cast<const bf16*>(from)[k]) << 16;
      std::memcpy(to + k, &bits, sizeof bits);
    }
  }
}

}  // namespace anytime
