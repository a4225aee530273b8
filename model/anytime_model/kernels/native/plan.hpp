// A flat program for one image size, checked once, and a run: one image's way through it.
//
// Checking is done when the plan is made: every slot, channel count and level of every operation is
// compared with what its kernel will touch, so that a wrong program is an error and not a crash. A
// run then only walks the operations, in pieces small enough that a caller can stop in between.
#pragma once

#include <memory>
#include <stdexcept>
#include <vector>

#include "api.h"
#include "bands.hpp"
#include "lists.hpp"
#include "model.hpp"

namespace anytime {

struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr int kImageSlot = 0;
constexpr int kMapSlot = 1;
// How many sites operations that are done together are done at: the values between them stay in a
// core's cache, and tiles of 4, 6, 8 and 12 pixels fit.
constexpr int kTogetherSites = 48;
static_assert(kTogetherSites == kMostStrips * kStrip);
constexpr int kMostSide = 32768;  // of a padded image, px: coordinates are packed in 16 bits

class Plan {
 public:
  Plan(std::shared_ptr<const Model>, int height, int width, std::vector<AnytimeSlot>,
       std::vector<AnytimeOp>, const int32_t* ends);

  int64_t scratch_bytes() const;
  int64_t run_bytes() const;

 private:
  friend class Run;
  void check(const AnytimeOp&, int index) const;
  void check_together(int first, int last) const;
  void find_bands();
  const Bands* bands_at(int op) const;  // that begin with an operation; nullptr where none do
  int64_t row_bytes(const AnytimeSlot&) const;
  int64_t slot_bytes(const AnytimeSlot&) const;
  const Kernels& kernels() const { return *model_->kernels; }

  std::shared_ptr<const Model> model_;
  Pyramid pyramid_;
  std::vector<AnytimeSlot> slots_;
  std::vector<AnytimeOp> ops_;
  int ends_[ANYTIME_STAGES];
  std::vector<Buffer> scratch_;  // one for each slot; empty where it belongs to the run
  Buffer kept_;                  // values before ReLU, between a convolution and its fill
  std::vector<int64_t> local_offsets_;  // of local slots, in each worker's buffer
  int64_t strip_offset_ = 0;            // of the room for strips in it
  int64_t local_bytes_ = 0;
  uint64_t used_[kLevels] = {};  // bits of the window that some fill of a level looks at
  std::vector<Bands> bands_;
  FullLists full_;
};

class Run {
 public:
  explicit Run(std::shared_ptr<const Plan>);

  void start(const uint8_t* bytes, const float* floats, int height, int width, const float* scale,
             const float* offset);
  bool advance(int64_t slice_us);  // whether there is more to do in this stage
  void settle(Measure, bool decide, float least, float most);
  void mask(const uint8_t* active);
  void read(float* map, float* confidence, uint8_t* active) const;
  int operation() const;
  int64_t macs() const { return macs_; }

 private:
  void* buffer(int slot, int worker = 0) const;
  const int32_t* at(int slot, const int32_t* global) const;
  const LevelLists& lists(int level) const;
  Sites sites(const AnytimeOp&) const;
  int end_of_group(int op) const;
  int64_t cost(const AnytimeOp&) const;
  int piece(int op, int end, int first, int last);
  bool band_piece(const Bands&);
  void move_windows(const Bands&);
  void step(int op, int end, int first, int last);
  void together(int op, int end, int first, int last);
  void conv(const AnytimeOp&, int first, int last);
  void fill(const AnytimeOp&, int first, int last);
  void mix(const AnytimeOp&, int first, int last);
  ConvCall conv_call(const AnytimeOp&, const Sites&, int worker) const;
  MixCall mix_call(const AnytimeOp&, const Sites&, int worker) const;
  template <class Body>
  void share(int first, int last, int tile, const Body&) const;

  std::shared_ptr<const Plan> plan_;
  std::vector<Buffer> own_;
  std::vector<Buffer> local_;  // one for each worker
  MaskLists mask_lists_;
  std::vector<uint8_t> active_;
  std::vector<float> confidence_, measure_;
  bool masked_ = false;
  int stage_ = ANYTIME_STAGES;  // nothing to do before an image comes
  int op_ = 0, first_ = 0;
  BandWalk walk_;
  int64_t macs_ = 0;
};

}  // namespace anytime
