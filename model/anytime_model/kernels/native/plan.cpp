#include "plan.hpp"

#include <algorithm>
#include <string>

namespace anytime {
namespace {

constexpr int kMostSlots = 4096, kMostOps = 65536, kMostChannels = 16384;

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
           std::vector<AnytimeSlot> slots, std::vector<AnytimeOp> ops, const int32_t* ends)
    : model_(std::move(model)),
      pyramid_(checked(height, width)),
      slots_(std::move(slots)),
      ops_(std::move(ops)),
      full_(pyramid_) {
  if (slots_.size() < 2 || slots_.size() > kMostSlots || ops_.size() > kMostOps)
    throw Refusal("a plan has 2 to 4096 slots and at most 65536 operations");
  for (const AnytimeSlot& slot : slots_)
    if (slot.level < 0 || slot.level >= kLevels || slot.channels < 1 ||
        slot.channels > kMostChannels || slot_bytes(slot) > (int64_t(1) << 40))
      throw Refusal("a slot's level or channels are out of range");
  const AnytimeSlot &image = slots_[kImageSlot], &map = slots_[kMapSlot];
  if (image.level != 0 || image.channels < 3 || image.channels > 4 || image.floats ||
      map.level != kMapLevel || !map.floats || !map.per_run || !image.per_run ||
      map.channels > kMostOutputs)
    throw Refusal("slot 0 must be the image and slot 1 the map, both the run's");
  int end = 0;
  for (int s = 0; s < ANYTIME_STAGES; s++) {
    if (ends[s] < end || ends[s] > int(ops_.size())) throw Refusal("stages must end in order");
    ends_[s] = end = ends[s];
  }
  int64_t kept = 0;
  for (int i = 0; i < int(ops_.size()); i++) {
    check(ops_[i], i);
    const AnytimeSlot& out = slots_[ops_[i].out];
    if (ops_[i].keep) kept = std::max(kept, pyramid_.level[out.level].stored() * out.channels);
  }
  kept_ = Buffer(kept * int64_t(sizeof(float)));
  for (const AnytimeSlot& slot : slots_)
    scratch_.push_back(slot.per_run ? Buffer() : Buffer(slot_bytes(slot)));
}

void Plan::check(const AnytimeOp& op, int i) const {
  const auto slot = [&](int32_t s) -> const AnytimeSlot& {
    require(s >= 0 && s < int(slots_.size()), i, "a slot that does not exist");
    return slots_[s];
  };
  const AnytimeSlot& out = slot(op.out);
  require(out.level >= 1, i, "it would write the image");
  require(op.where == ANYTIME_ACTIVE || op.where == ANYTIME_NEEDED, i, "unknown place");
  require(op.conv >= -1 && op.conv < int(model_->convs.size()), i, "no such convolution");
  require(op.norm >= -1 && op.norm < int(model_->norms.size()), i, "no such norm");
  require(!op.keep || op.where == ANYTIME_ACTIVE, i, "only active values are kept");
  require(!op.keep || out.level >= kMapLevel, i, "only masked levels keep values");
  if (op.norm >= 0 && op.kind != ANYTIME_MIX)
    require(model_->norms[op.norm]->channels == out.channels, i, "norm of another width");
  if (op.residual != -1) {
    const AnytimeSlot& r = slot(op.residual);
    require(r.level == out.level && r.channels == out.channels && r.floats == out.floats &&
                op.residual != op.out,
            i, "residual unlike the output");
  }
  switch (op.kind) {
    case ANYTIME_CONV: {
      require(op.conv >= 0 && op.inputs == 1 && op.first == 0, i, "not a convolution's shape");
      const PackedConv& conv = model_->convs[op.conv]->packed;
      const AnytimeSlot& in = slot(op.in[0]);
      require(op.in[0] != op.out && !in.floats, i, "a convolution of this input");
      require(in.channels == conv.in_channels && out.channels == conv.out_channels, i,
              "convolution of other channels");
      require(in.level + (conv.stride == 2) == out.level, i, "convolution between these levels");
      require(conv.stride == 1 || op.where == ANYTIME_ACTIVE, i, "strided where not active");
      break;
    }
    case ANYTIME_FILL:
      require(op.norm >= 0 && model_->norms[op.norm]->used, i, "a fill without a window");
      require(out.level >= kMapLevel && !out.floats, i, "a fill of this output");
      break;
    case ANYTIME_MIX: {
      require(op.inputs >= 1 && op.inputs <= ANYTIME_TERMS && op.residual == -1, i,
              "not a mix's shape");
      const int channels = slot(op.in[0]).channels;
      require(op.first >= 0 && op.first + channels <= out.channels, i, "channels beyond the slot");
      require(!op.keep || channels == out.channels, i, "part of a slot is kept");
      require(op.norm < 0 || model_->norms[op.norm]->channels == channels, i,
              "norm of another width");
      for (int t = 0; t < op.inputs; t++) {
        const AnytimeSlot& in = slot(op.in[t]);
        require(in.channels == channels && op.in[t] != op.out, i, "terms of different widths");
        require(in.floats == slot(op.in[0]).floats, i, "terms of different types");
        require(!in.floats == !out.floats, i, "a mix into another type");
        require(in.level >= out.level - (op.pool != 0), i, "a term larger than the output");
      }
      break;
    }
    default:
      require(false, i, "unknown kind");
  }
}

int64_t Plan::slot_bytes(const AnytimeSlot& slot) const {
  const int64_t element = slot.floats ? int64_t(sizeof(float)) : kernels().element_size;
  return pyramid_.level[slot.level].stored() * slot.channels * element;
}

int64_t Plan::scratch_bytes() const {
  int64_t total = kept_.bytes() + FullLists::bytes_for(pyramid_);
  for (const Buffer& buffer : scratch_) total += buffer.bytes();
  return total;
}

int64_t Plan::run_bytes() const {
  int64_t total = MaskLists::bytes_for(pyramid_) + pyramid_.level[kMapLevel].pixels() * 9;
  for (const AnytimeSlot& slot : slots_)
    if (slot.per_run) total += slot_bytes(slot);
  return total;
}

}  // namespace anytime
