#include "plan.hpp"

#include <algorithm>
#include <string>

namespace anytime {
namespace {

constexpr int kMostSlots = 4096, kMostOps = 65536;

void require(bool held, int index, const char* what) {
  if (!held) throw Refusal("operation " + std::to_string(index) + ": " + what);
}

Pyramid checked(int height, int width) {
  constexpr int kMultiple = 1 << (kLevels - 1);
  if (height < kMultiple || width < kMultiple || height % kMultiple || width % kMultiple ||
      height > kMostSide || width > kMostSide)
    throw Refusal("a padded image's sides must be multiples of 32 from 32 to 32768 px");
  return Pyramid(height, width);
}

}  // namespace

Plan::Plan(std::shared_ptr<const Model> model, int height, int width,
           std::vector<AnytimeSlot> slots, std::vector<AnytimeOp> ops,
           std::vector<int32_t> heads, std::vector<int32_t> ends)
    : model_(std::move(model)),
      pyramid_(checked(height, width)),
      slots_(std::move(slots)),
      ops_(std::move(ops)),
      heads_(std::move(heads)),
      ends_(std::move(ends)),
      full_(pyramid_) {
  if (slots_.size() < 2 || slots_.size() > kMostSlots || ops_.size() > kMostOps)
    throw Refusal("a plan has 2 to 4096 slots and at most 65536 operations");
  for (const AnytimeSlot& slot : slots_)
    if (slot.storage < ANYTIME_SCRATCH || slot.storage > ANYTIME_HELD || slot.level < 0 ||
        slot.level >= kLevels || slot.zero < 0 || slot.zero > 255 || slot.channels < 1 || slot.channels > kMostChannels || slot_bytes(slot) > (int64_t(1) << 40))
      throw Refusal("a slot's level or channels are out of range");
  const AnytimeSlot &image = slots_[kImageSlot], &map = slots_[kMapSlot];
  if (image.level != 0 || image.channels < 3 || image.channels > 4 || image.floats ||
      map.level != kMapLevel || !map.floats || map.storage != ANYTIME_RUN ||
      image.storage != ANYTIME_RUN ||
      map.channels > kMostOutputs)
    throw Refusal("slot 0 must be the image and slot 1 the map, both the run's");
  int end = 0;
  if (ends_.empty()) throw Refusal("a plan has at least one stage");
  for (const int32_t stage_end : ends_) {
    if (stage_end < end || stage_end > int(ops_.size())) throw Refusal("stages must end in order");
    end = stage_end;
  }
  for (int i = 0; i < int(ops_.size()); i++) check(ops_[i], i);
  int first = 0;
  for (int i = 0; i < int(ops_.size()); i++) {
    if (ops_[i].fused) continue;
    check_fused(first, i + 1);
    first = i + 1;
  }
  if (first != int(ops_.size())) throw Refusal("the last operation has none to be fused with");
  check_heads();
  find_tilings();
  check_held();
  int64_t kept = 0;
  for (const AnytimeOp& op : ops_) {
    const AnytimeSlot& out = slots_[op.out];
    if (op.kind == ANYTIME_INTERPOLATE) used_[out.level] |= model_->norms[op.norm]->used;
    if (op.keep) kept = std::max(kept, pyramid_.level[out.level].stored() * out.channels);
  }
  kept_ = Buffer(kept * int64_t(sizeof(float)));
  for (int i = 0; i < int(slots_.size()); i++) {
    int64_t bytes = 0;
    if (slots_[i].storage == ANYTIME_SCRATCH) bytes = slot_bytes(slots_[i]);
    for (const RowTiling& tiling : tilings_) bytes += tiling.window_rows(i) * row_bytes(slots_[i]);
    scratch_.push_back(bytes > 0 ? Buffer(bytes) : Buffer());
  }
  for (const AnytimeSlot& slot : slots_) {
    local_offsets_.push_back(local_bytes_);
    if (slot.storage == ANYTIME_LOCAL)
      local_bytes_ += int64_t(slot.channels) * kFusedSites * int64_t(sizeof(float));
  }
  winograd_offset_ = local_bytes_;
  int64_t room = 0;
  for (const AnytimeOp& op : ops_)
    if (op.kind == ANYTIME_CONV && model_->convs[op.conv]->packed.points != nullptr)
      room = std::max(room, winograd_room(model_->convs[op.conv]->packed,
                                          kFusedSites / kWinogradOutputs));
  local_bytes_ += room * int64_t(sizeof(float));
}

void Plan::check(const AnytimeOp& op, int i) const {
  const auto slot = [&](int32_t s) -> const AnytimeSlot& {
    require(s >= 0 && s < int(slots_.size()), i, "a slot that does not exist");
    return slots_[s];
  };
  const AnytimeSlot& out = slot(op.out);
  require(out.level >= 1, i, "it would write the image");
  require(op.inputs >= 0 && op.inputs <= ANYTIME_TERMS, i, "too many inputs");
  require(op.where >= ANYTIME_ACTIVE && op.where <= ANYTIME_EVERYWHERE, i, "unknown sites");
  require(op.activation >= int(Activation::none) && op.activation <= int(Activation::relu6), i,
          "unknown activation");
  require(op.conv >= -1 && op.conv < int(model_->convs.size()), i, "no such convolution");
  require(op.norm >= -1 && op.norm < int(model_->norms.size()), i, "no such norm");
  require(!op.keep || op.where == ANYTIME_ACTIVE, i, "only active values are kept");
  require(!op.keep || out.level >= kMapLevel, i, "only masked levels keep values");
  if (op.norm >= 0 && op.kind != ANYTIME_WEIGHTED_SUM)
    require(model_->norms[op.norm]->channels == out.channels, i, "norm of another width");
  if (op.residual != -1) {
    const AnytimeSlot& r = slot(op.residual);
    require(r.level == out.level && r.channels == out.channels && r.floats == out.floats &&
                (r.storage == ANYTIME_LOCAL) == (out.storage == ANYTIME_LOCAL),
            i, "residual unlike the output");
  }
  switch (op.kind) {
    case ANYTIME_CONV: {
      require(op.conv >= 0 && op.inputs == 1 && op.first == 0, i, "not a convolution's shape");
      const PackedConv& conv = model_->convs[op.conv]->packed;
      const AnytimeSlot& in = slot(op.in[0]);
      const bool whole = model_->convs[op.conv]->kernels != &kernels();
      require(op.in[0] != op.out && !in.floats == !whole, i, "a convolution of this input");
      require(out.floats || !whole, i, "a convolution of floats to bytes");
      const int depth = kernels().element_size == 1 ? kernels().depth : 1;
      const int padded = (conv.out_channels + depth - 1) / depth * depth;
      require(in.channels == conv.in_channels &&
                  (out.channels == padded || (out.floats && out.channels == conv.out_channels)),
              i, "convolution of other channels");
      require(kernels().element_size > 1 || op.norm >= 0, i, "a sum of bytes without a scale");
      require(in.level + (conv.stride == 2) == out.level, i, "convolution between these levels");
      require(conv.stride == 1 || op.where != ANYTIME_NEEDED, i, "strided where needed");
      require(!conv.depthwise || !out.floats, i, "a depthwise convolution to floats");
      require(conv.points == nullptr ||
                  (i < ends_[0] && op.fused && op.where == ANYTIME_ACTIVE &&
                   pyramid_.level[out.level].width % kWinogradOutputs == 0),
              i, "a dense convolution outside of the first stage, or alone");
      break;
    }
    case ANYTIME_INTERPOLATE:
      require(op.norm >= 0 && model_->norms[op.norm]->used, i, "an interpolation without a window");
      require(out.level >= kMapLevel && (!out.floats || kernels().whole != nullptr) &&
                  out.storage != ANYTIME_LOCAL, i,
              "an interpolation of this output");
      break;
    case ANYTIME_WEIGHTED_SUM: {
      require(op.inputs >= 1 && op.inputs <= ANYTIME_TERMS && op.residual == -1, i,
              "not a weighted sum's shape");
      const int channels = slot(op.in[0]).channels;
      require(kernels().element_size > 1 || out.floats || op.norm >= 0, i,
              "a sum of bytes without a scale");
      require(op.first >= 0 && op.first + channels <= out.channels, i, "channels beyond the slot");
      require(!op.keep || channels == out.channels, i, "part of a slot is kept");
      require(op.norm < 0 || model_->norms[op.norm]->channels == channels, i,
              "norm of another width");
      for (int t = 0; t < op.inputs; t++) {
        const AnytimeSlot& in = slot(op.in[t]);
        require(in.channels == channels && op.in[t] != op.out, i, "terms of different widths");
        require(kernels().whole != nullptr || !in.floats == !out.floats, i,
                "a sum into another type");
        require(in.level >= out.level - (op.pool != 0), i, "a term larger than the output");
      }
      break;
    }
    default:
      require(false, i, "unknown kind");
  }
}

// Operations [first, last) are one fused group: for a few sites one after the other, then for the
// next few. So they must be at the same sites, and what one writes may be read by another only at
// the very site. A local slot is known nowhere else.
void Plan::check_fused(int first, int last) const {
  const auto pointwise = [&](const AnytimeOp& op) {
    return op.kind == ANYTIME_CONV && model_->convs[op.conv]->packed.kernel == 1 &&
           !model_->convs[op.conv]->packed.depthwise &&
           model_->convs[op.conv]->packed.stride == 1;
  };
  for (int i = first; i < last; i++) {
    const AnytimeOp& op = ops_[i];
    const AnytimeSlot& out = slots_[op.out];
    require(last - first == 1 ||
                (op.kind != ANYTIME_INTERPOLATE && op.where == ops_[first].where &&
                 out.level == slots_[ops_[first].out].level),
            i, "fused with operations at other sites");
    require(out.storage != ANYTIME_LOCAL || !op.keep, i, "a local value is kept");
    const auto written = [&](int slot, int begin, int end) {
      for (int j = begin; j < end; j++)
        if (ops_[j].out == slot) return true;
      return false;
    };
    for (int t = 0; t < op.inputs; t++) {
      require(pointwise(op) || !written(op.in[t], first, last), i,
              "it reads around what is written in its fused group");
      require(slots_[op.in[t]].storage != ANYTIME_LOCAL || written(op.in[t], first, i), i,
              "it reads a local slot that nothing has written");
    }
    if (op.residual >= 0)
      require(slots_[op.residual].storage != ANYTIME_LOCAL || written(op.residual, first, i), i,
              "it adds a local slot that nothing has written");
  }
}

// An exit can be left out if nothing but itself reads what it writes, and if it shares no fused group
// and no row tiling with the stage before it.
void Plan::check_heads() const {
  if (heads_.empty()) return;
  if (heads_.size() != ends_.size()) throw Refusal("as many exits begin as stages end");
  std::vector<int> writer(slots_.size(), -1);  // the exit that has written a slot last, or a stage
  int begin = 0;
  for (int stage = 0; stage < int(ends_.size()); stage++) {
    const int head = heads_[stage], end = ends_[stage];
    if (head < begin || head > end) throw Refusal("an exit begins outside of its stage");
    require(head == 0 || !(ops_[head - 1].fused || ops_[head - 1].tiled), head,
            "an exit begins within a fused group or a row tiling");
    for (int i = begin; i < end; i++) {
      const AnytimeOp& op = ops_[i];
      const int here = i < head ? -1 : stage;
      const auto read = [&](int slot) {
        require(writer[slot] == -1 || writer[slot] == here, i,
                "it reads what an exit before it has written, which may be left out");
      };
      for (int t = 0; t < op.inputs; t++) read(op.in[t]);
      if (op.residual >= 0) read(op.residual);
      writer[op.out] = here;
    }
    begin = end;
  }
}

// A run with a cache walks lists of its own in the first stage, and each stage makes all its slots.
void Plan::check_held() {
  for (const AnytimeSlot& slot : slots_) {
    if (slot.storage != ANYTIME_HELD) continue;
    holds_ = true;
    if (slot.level < kMapLevel) throw Refusal("a held slot is larger than the map");
  }
  if (!holds_) return;
  if (!tilings_.empty() || !heads_.empty() || int(ends_.size()) > StaleCells::kMostStages)
    throw Refusal("a plan with held slots has row tilings, heads, or more than 8 stages");
}

// Row tiling is done where the first stage says so. A window is known to one tiling only.
void Plan::find_tilings() {
  for (int i = 0; i < int(ops_.size()); i++) {
    require(!ops_[i].tiled || (!ops_[i].fused && i + 1 < ends_[0]), i,
            "row tiling ends before the first stage does, and after a fused group");
  }
  std::vector<int> owner(slots_.size(), -1);
  for (int first = 0; first < int(ops_.size());) {
    const auto next = [&](int op) {
      while (ops_[op].fused) op++;
      return op;
    };
    int last = next(first);
    const bool tiled = ops_[last].tiled;
    while (ops_[last].tiled) last = next(last + 1);
    require(!tiled || last < ends_[0], last, "row tiling goes beyond the first stage");
    if (tiled) tilings_.emplace_back(*model_, pyramid_, slots_, ops_, first, last + 1);
    for (int i = first; i <= last; i++) {
      const AnytimeOp& op = ops_[i];
      const auto claim = [&](int slot) {
        if (slot < 0 || slots_[slot].storage != ANYTIME_WINDOW) return;
        const int mine = tiled ? int(tilings_.size()) - 1 : -2;
        require(tiled && (owner[slot] == -1 || owner[slot] == mine), i,
                "a window outside of its row tiling");
        owner[slot] = mine;
      };
      claim(op.out);
      claim(op.residual);
      for (int t = 0; t < op.inputs; t++) claim(op.in[t]);
    }
    first = last + 1;
  }
}

const RowTiling* Plan::tiling_at(int op) const {
  for (const RowTiling& tiling : tilings_)
    if (tiling.first() == op) return &tiling;
  return nullptr;
}

int64_t Plan::row_bytes(const AnytimeSlot& slot) const {
  const int64_t element = slot.floats ? int64_t(sizeof(float)) : kernels().element_size;
  return int64_t(pyramid_.level[slot.level].pitch()) * slot.channels * element;
}

int64_t Plan::slot_bytes(const AnytimeSlot& slot) const {
  return (pyramid_.level[slot.level].height + 2) * row_bytes(slot);
}

int64_t Plan::scratch_bytes() const {
  int64_t total = kept_.bytes() + FullLists::bytes_for(pyramid_);
  for (const Buffer& buffer : scratch_) total += buffer.bytes();
  return total;
}

int64_t Plan::run_bytes() const {
  int64_t total = MaskLists::bytes_for(pyramid_, holds_) + pyramid_.level[kMapLevel].pixels() * 9;
  for (const AnytimeSlot& slot : slots_)
    if (slot.storage == ANYTIME_RUN) total += slot_bytes(slot);
  return total;
}

}  // namespace anytime
