#include "lists.hpp"

#include <algorithm>
#include <cstring>

namespace anytime {
namespace {


// The two source coordinates of output coordinate `u`, upsampling by 2^shift.
struct Pair {
  int low, high;
};
Pair sources(int u, int shift, int size) {
  // (u + 1/2) / 2^shift - 1/2, rounded down, in whole numbers.
  const int low = std::max(0, (2 * u + 1 - (1 << shift)) >> (shift + 1));
  return {low, std::min(low + 1, size - 1)};
}

}  // namespace

void LevelLists::reserve(Grid grid) {
  grid_ = grid;
  const size_t n = size_t(grid.pixels());
  for (auto* list : {&active_at_, &active_twice_, &active_yx_, &needed_at_, &needed_yx_, &fill_at_,
                     &fill_yx_})
    list->reserve(n);
  around_.reserve(n);
  keep_.reserve(n);
  never_.assign(n, 0);
  clear();
}

void LevelLists::clear() {
  for (auto* list : {&active_at_, &active_twice_, &active_yx_, &needed_at_, &needed_yx_, &fill_at_,
                     &fill_yx_})
    list->clear();
  around_.clear();
  keep_.clear();
  std::fill(std::begin(histogram_), std::end(histogram_), 0);
}

int64_t LevelLists::bytes_for(Grid grid) {
  return grid.pixels() * int64_t(7 * sizeof(int32_t) + sizeof(uint64_t) + 2);
}

void LevelLists::add_active(int y, int x) {
  active_at_.push_back((y + 1) * grid_.pitch() + x + 1);
  active_twice_.push_back((2 * y + 1) * (2 * grid_.width + 2) + 2 * x + 1);
  active_yx_.push_back(y << 16 | x);
  keep_.push_back(0);
}

void LevelLists::add_needed(int y, int x) {
  needed_at_.push_back((y + 1) * grid_.pitch() + x + 1);
  needed_yx_.push_back(y << 16 | x);
}

void LevelLists::add_fill(int y, int x, uint64_t around) {
  fill_at_.push_back((y + 1) * grid_.pitch() + x + 1);
  fill_yx_.push_back(y << 16 | x);
  around_.push_back(around);
  for (uint64_t bits = around; bits; bits &= bits - 1) histogram_[__builtin_ctzll(bits)]++;
}

Sites LevelLists::active() const {
  return {active_at_.data(), active_twice_.data(), active_yx_.data(),
          keep_.data(),      nullptr,              int(active_at_.size())};
}

Sites LevelLists::needed() const {
  if (needed_at_.empty()) {  // no mask: what is active is all there is
    Sites all = active();
    all.keep = never_.data();
    return all;
  }
  return {needed_at_.data(), nullptr, needed_yx_.data(), never_.data(), nullptr,
          int(needed_at_.size())};
}

Sites LevelLists::to_fill() const {
  return {fill_at_.data(), nullptr,        fill_yx_.data(),
          never_.data(),   around_.data(), int(fill_at_.size())};
}

int64_t LevelLists::neighbours(uint64_t used) const {
  int64_t total = 0;
  for (; used; used &= used - 1) total += histogram_[__builtin_ctzll(used)];
  return total;
}

MaskLists::MaskLists(const Grid (&grids)[kLevels]) {
  for (int l = kMapLevel; l < kLevels; l++) {
    grids_[l] = grids[l];
    levels_[l].reserve(grids[l]);
    for (Map* map : {&active_[l], &needed_[l], &keep_[l]}) {
      map->pitch = grids[l].width + 2 * kRadius;
      map->at.assign(size_t(map->pitch) * (grids[l].height + 2 * kRadius), 0);
    }
  }
}

int64_t MaskLists::bytes_for(const Grid (&grids)[kLevels]) {
  int64_t total = 0;
  for (int l = kMapLevel; l < kLevels; l++)
    total += LevelLists::bytes_for(grids[l]) + 3 * grids[l].stored();
  return total;
}

void MaskLists::need_sources(int fine, int coarse) {
  const Grid& size = grids_[coarse];
  for (const int32_t yx : levels_[fine].needed_yx_) {
    const Pair y = sources(yx >> 16, coarse - fine, size.height);
    const Pair x = sources(yx & 0xffff, coarse - fine, size.width);
    Map& map = needed_[coarse];
    map(y.low, x.low) = map(y.low, x.high) = map(y.high, x.low) = map(y.high, x.high) = 1;
  }
}

uint64_t MaskLists::around(Map& map, int y, int x) const {
  uint64_t bits = 0;
  for (int row = 0; row < kSide; row++) {
    const uint8_t* seven = &map(y + row - kRadius, x - kRadius);
    uint64_t line = 0;
    for (int i = 0; i < kSide; i++) line |= uint64_t(seven[i]) << i;
    bits |= line << (kSide * row);
  }
  return bits;
}

void MaskLists::build(const uint8_t* active) {
  for (int l = kMapLevel; l < kLevels; l++) {
    const Grid& size = grids_[l];
    LevelLists& lists = levels_[l];
    lists.clear();
    for (Map* map : {&active_[l], &needed_[l], &keep_[l]})
      std::fill(map->at.begin(), map->at.end(), uint8_t(0));
    const int step = 1 << (l - kMapLevel);
    for (int y = 0; y < size.height; y++)
      for (int x = 0; x < size.width; x++) {
        if (!active[int64_t(y) * step * grids_[kMapLevel].width + x * step]) continue;
        active_[l](y, x) = 1;
        lists.add_active(y, x);
        for (int dy = -1; dy <= 1; dy++) std::memset(&needed_[l](y + dy, x - 1), 1, 3);
      }
    for (int fine = kMapLevel; fine < l; fine++) need_sources(fine, l);
    for (int y = 0; y < size.height; y++)
      for (int x = 0; x < size.width; x++) {
        if (!needed_[l](y, x)) continue;
        lists.add_needed(y, x);
        if (active_[l](y, x)) continue;
        const uint64_t near = around(active_[l], y, x);
        lists.add_fill(y, x, near);
        for (uint64_t bits = near; bits; bits &= bits - 1) {
          const int bit = __builtin_ctzll(bits);
          keep_[l](y + bit / kSide - kRadius, x + bit % kSide - kRadius) = 1;
        }
      }
    for (size_t i = 0; i < lists.active_yx_.size(); i++)
      lists.keep_[i] = keep_[l](lists.active_yx_[i] >> 16, lists.active_yx_[i] & 0xffff);
  }
}

FullLists::FullLists(const Grid (&grids)[kLevels]) {
  for (int l = 1; l < kLevels; l++) {
    levels_[l].reserve(grids[l]);
    for (int y = 0; y < grids[l].height; y++)
      for (int x = 0; x < grids[l].width; x++) levels_[l].add_active(y, x);
  }
}

int64_t FullLists::bytes_for(const Grid (&grids)[kLevels]) {
  int64_t total = 0;
  for (int l = 1; l < kLevels; l++) total += LevelLists::bytes_for(grids[l]);
  return total;
}

}  // namespace anytime
