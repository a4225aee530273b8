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
#include "row_tiling.hpp"
#include "lists.hpp"
#include "model.hpp"

namespace anytime {

struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr int kImageSlot = 0;
constexpr int kMapSlot = 1;
// How many sites the operations of a fused group are done at: the values between them stay in a
// core's cache, and tiles of 4, 6, 8 and 12 pixels fit.
constexpr int kFusedSites = 48;
static_assert(kFusedSites == kMostWinogradTiles * kWinogradOutputs);
constexpr int kMostSide = 32768;  // of a padded image, px: coordinates are packed in 16 bits

class Cache;

class Plan {
 public:
  Plan(std::shared_ptr<const Model>, int height, int width, std::vector<AnytimeSlot>,
       std::vector<AnytimeOp>, std::vector<int32_t> heads, std::vector<int32_t> ends);

  int64_t scratch_bytes() const;
  int64_t run_bytes() const;

 private:
  friend class Cache;
  friend class Run;
  void check(const AnytimeOp&, int index) const;
  void check_fused(int first, int last) const;
  void check_heads() const;
  void find_tilings();
  void check_held();
  const RowTiling* tiling_at(int op) const;  // that begins with an operation, or nullptr
  int64_t row_bytes(const AnytimeSlot&) const;
  int64_t slot_bytes(const AnytimeSlot&) const;
  const Kernels& kernels() const { return *model_->kernels; }

  std::shared_ptr<const Model> model_;
  Pyramid pyramid_;
  std::vector<AnytimeSlot> slots_;
  std::vector<AnytimeOp> ops_;
  std::vector<int32_t> heads_;  // where the exit of each stage begins; empty if none may be left out
  std::vector<int32_t> ends_;  // one for each stage
  std::vector<Buffer> scratch_;  // one for each slot; empty where it belongs to the run
  Buffer kept_;                  // values before ReLU, between a convolution and its interpolation
  std::vector<int64_t> local_offsets_;  // of local slots, in each worker's buffer
  int64_t winograd_offset_ = 0;         // of the room for Winograd tiles in it
  int64_t local_bytes_ = 0;
  uint64_t used_[kLevels] = {};  // bits of the window that some interpolation reads
  std::vector<RowTiling> tilings_;
  FullLists full_;
  bool holds_ = false;  // some slots are of a cache
};

class Run {
 public:
  explicit Run(std::shared_ptr<const Plan>);

  void start(const uint8_t* bytes, const float* floats, int height, int width, const float* scale,
             const float* offset);
  bool advance(int exit, int64_t slice_us);  // whether there is more to do until it is made
  void settle(Measure, bool decide, float least, float most);
  void mask(const uint8_t* active);
  void apply_prior(const float* map, const uint8_t* active);
  void hold(std::shared_ptr<Cache>, const uint8_t* fresh);
  void read(float* map, float* confidence, uint8_t* active) const;
  void read_slot(int slot, float* values) const;
  int operation() const;
  int64_t macs() const { return macs_; }

 private:
  void begin_stage();
  void shrink_mask();
  void* buffer(int slot, int worker = 0) const;
  const int32_t* at(int slot, const int32_t* global) const;
  const LevelLists& lists(int level) const;
  Sites sites(const AnytimeOp&) const;
  int end_of_group(int op) const;
  int64_t cost(const AnytimeOp&) const;
  int piece(int op, int end, int first, int last);
  bool tile_piece(const RowTiling&);
  void move_windows(const RowTiling&);
  void step(int op, int end, int first, int last);
  void fused(int op, int end, int first, int last);
  decltype(Kernels::conv) conv_kernel(const AnytimeOp&) const;
  void conv(const AnytimeOp&, int first, int last);
  void interpolate(const AnytimeOp&, int first, int last);
  void weighted_sum(const AnytimeOp&, int first, int last);
  ConvCall conv_call(const AnytimeOp&, const Sites&, int worker) const;
  WeightedSumCall weighted_sum_call(const AnytimeOp&, const Sites&, int worker) const;
  template <class Body>
  void share(int first, int last, int tile, const Body&) const;

  std::shared_ptr<const Plan> plan_;
  std::vector<Buffer> own_;
  std::vector<Buffer> local_;  // one for each worker
  std::shared_ptr<Cache> cache_;  // nullptr of a plan that holds nothing
  int64_t turn_ = 0;              // of the cache's users
  int listed_ = -1;               // the stage that its lists are for
  MaskLists mask_lists_;
  std::vector<uint8_t> active_;
  std::vector<float> confidence_, measure_;
  bool masked_ = false;
  int stage_ = -1;  // before an image comes
  int exit_ = 0;    // number of the one that is being made, 0 for none
  int maps_ = 0;    // made of this image
  bool measure_all_ = false;  // the next measurement is of every pixel, settled ones too
  int op_ = 0, first_ = 0;
  TilingProgress progress_;
  int64_t macs_ = 0;
};

}  // namespace anytime
