#include "lists.hpp"

#include <algorithm>
#include <cstring>

namespace anytime {
namespace {

// The two source coordinates of output coordinate `u`, upsampling by 2^shift.
struct Pair {
  int32_t low, high;
};
Pair sources(int u, int shift, int size) {
  // (u + 1/2) / 2^shift - 1/2, rounded down, in whole numbers.
  const int low = std::max(0, (2 * u + 1 - (1 << shift)) >> (shift + 1));
  return {low, std::min(low + 1, size - 1)};
}

// Seven bytes of 0 or 1, the first in the lowest bit.
uint64_t seven_bits(const uint8_t* bytes) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  // Multiplying moves byte i to bit 56 + i, without carries as each sum has one term.
  uint64_t word;
  std::memcpy(&word, bytes, 8);
  return ((word & 0x0001010101010101) * 0x0102040810204080) >> 56;
#else
  uint64_t bits = 0;
  for (int i = 0; i < kSide; i++) bits |= uint64_t(bytes[i]) << i;
  return bits;
#endif
}

}  // namespace

LevelLists::LevelLists(Grid grid) : grid_(grid) {
  const auto n = std::size_t(grid.pixels());
  for (auto* list : {&active_.at, &active_.twice, &active_.yx, &needed_.at, &needed_.yx,
                     &interpolated_.at, &interpolated_.yx})
    list->resize(n + 1);  // a scan writes one beyond before it knows whether to
  around_.resize(n);
  keep_.resize(n);
  never_.resize(n);
}

int64_t LevelLists::bytes_for(Grid grid) {
  return grid.pixels() * int64_t(7 * sizeof(int32_t) + sizeof(uint64_t) + 2);
}

void LevelLists::set_all() {
  int n = 0;
  for (int y = 0; y < grid_.height; y++)
    for (int x = 0; x < grid_.width; x++, n++) {
      active_.at[n] = (y + 1) * grid_.pitch() + x + 1;
      active_.twice[n] = (2 * y + 1) * (2 * grid_.width + 2) + 2 * x + 1;
      active_.yx[n] = y << 16 | x;
    }
  active_.count = needed_.count = n;
  needed_.at = active_.at;
  needed_.yx = active_.yx;
}

Sites LevelLists::active() const {
  return {active_.at.data(), active_.twice.data(), active_.yx.data(),
          keep_.data(),      nullptr,              active_.count};
}

Sites LevelLists::needed() const {
  return {needed_.at.data(), nullptr, needed_.yx.data(), never_.data(), nullptr, needed_.count};
}

Sites LevelLists::to_interpolate() const {
  return {interpolated_.at.data(), nullptr,        interpolated_.yx.data(),
          never_.data(),   around_.data(), interpolated_.count};
}

int64_t LevelLists::neighbours(uint64_t used) const {
  int64_t total = 0;
  for (; used; used &= used - 1) total += histogram_[__builtin_ctzll(used)];
  return total;
}

MaskLists::Map::Map(Grid grid)
    : pitch(grid.width + 2 * kRadius),
      at(std::size_t(pitch) * std::size_t(grid.height + 2 * kRadius) + 1) {}

StaleCells::StaleCells(const Pyramid& pyramid) : pyramid_(pyramid) {
  for (int l = kMapLevel; l < kLevels; l++) flags_[l].resize(size_t(pyramid.level[l].pixels()));
  mark(nullptr);
}

int64_t StaleCells::bytes() const {
  int64_t total = 0;
  for (const auto& flags : flags_) total += int64_t(flags.size());
  return total;
}

void StaleCells::mark(const uint8_t* fresh) {
  for (int l = kMapLevel; l < kLevels; l++) {
    if (fresh == nullptr) {
      std::fill(flags_[l].begin(), flags_[l].end(), uint8_t(0xff));
      continue;
    }
    const Grid grid = pyramid_.level[l];
    const int step = 1 << (l - kMapLevel);
    uint8_t* to = flags_[l].data();
    for (int y = 0; y < grid.height; y++) {
      const uint8_t* from = fresh + int64_t(y) * step * pyramid_.level[kMapLevel].width;
      for (int x = 0; x < grid.width; x++, to++) *to |= from[x * step] ? 0xff : 0;
    }
  }
}

void StaleCells::made(int stage) {
  for (auto& flags : flags_)
    for (uint8_t& flag : flags) flag &= uint8_t(~(1u << stage));
}

MaskLists::MaskLists(const Pyramid& pyramid, const uint64_t* used, bool holds) : pyramid_(pyramid) {
  std::copy_n(used, kLevels, used_);
  if (holds) {
    levels_[kMapLevel - 1] = LevelLists(pyramid.level[kMapLevel - 1]);
    needed_[kMapLevel - 1] = Map(pyramid.level[kMapLevel - 1]);
  }
  for (int l = kMapLevel; l < kLevels; l++) {
    const Grid grid = pyramid.level[l];
    levels_[l] = LevelLists(grid);
    active_[l] = needed_[l] = keep_[l] = Map(grid);
  }
  wide_.resize(std::size_t(pyramid.level[kMapLevel].width + 2 * kRadius));
}

int64_t MaskLists::bytes_for(const Pyramid& pyramid, bool holds) {
  const Grid wide = pyramid.level[kMapLevel - 1];
  int64_t total = holds ? LevelLists::bytes_for(wide) + wide.stored() : 0;
  for (int l = kMapLevel; l < kLevels; l++)
    total += LevelLists::bytes_for(pyramid.level[l]) + 3 * pyramid.level[l].stored();
  return total;
}

void MaskLists::build(const uint8_t* active) {
  for (int l = kMapLevel; l < kLevels; l++) {
    find_active(l, active);
    find_needed(l);
    find_to_interpolate(l);
  }
}

void MaskLists::build(const uint8_t* active, const StaleCells& stale, int stage) {
  for (int l = kMapLevel; l < kLevels; l++) {
    find_active(l, active);
    find_stale(l, stale, stage);
    find_to_interpolate(l);
  }
}

void MaskLists::find_stale(int l, const StaleCells& stale, int stage) {
  const Grid grid = pyramid_.level[l];
  int64_t pixel = 0;
  for (int y = 0; y < grid.height; y++) {
    uint8_t *needed = needed_[l].row(y), *active = active_[l].row(y);
    for (int x = 0; x < grid.width; x++, pixel++)
      needed[x] = stale.at(l, pixel, stage) | active[x];
  }
}

void MaskLists::build_first(const StaleCells& stale) {
  constexpr int kWide = kMapLevel - 1;
  for (int l = kMapLevel; l < kLevels; l++) {
    std::fill(active_[l].at.begin(), active_[l].at.end(), uint8_t(0));
    find_stale(l, stale, 0);
  }
  const Grid grid = pyramid_.level[kMapLevel];
  std::fill(needed_[kWide].at.begin(), needed_[kWide].at.end(), uint8_t(0));
  for (int y = 0; y < grid.height; y++) {
    uint8_t* row = needed_[kMapLevel].row(y);
    for (int x = 0; x < grid.width; x += kWinogradOutputs) {
      bool any = false;
      for (int i = 0; i < kWinogradOutputs; i++) any |= row[x + i] != 0;
      std::fill_n(row + x, kWinogradOutputs, uint8_t(any));
      if (!any) continue;
      for (int dy = -1; dy <= 1; dy++)
        std::fill_n(needed_[kWide].row(2 * y + dy) + 2 * x - 1, 2 * kWinogradOutputs + 1, uint8_t(1));
    }
  }
  for (int l = kWide; l < kLevels; l++) list_first(l);
}

// What is needed is computed.
void MaskLists::list_first(int l) {
  const Grid grid = pyramid_.level[l];
  LevelLists& lists = levels_[l];
  int n = 0;
  for (int y = 0; y < grid.height; y++) {
    const uint8_t* row = needed_[l].row(y);
    for (int x = 0; x < grid.width; x++) {
      lists.active_.at[n] = lists.needed_.at[n] = (y + 1) * grid.pitch() + x + 1;
      lists.active_.twice[n] = (2 * y + 1) * (2 * grid.width + 2) + 2 * x + 1;
      lists.active_.yx[n] = lists.needed_.yx[n] = y << 16 | x;
      n += row[x];
    }
  }
  lists.active_.count = lists.needed_.count = n;
  lists.interpolated_.count = 0;
  std::fill_n(lists.keep_.begin(), n, uint8_t(0));
}

void MaskLists::find_active(int l, const uint8_t* active) {
  const Grid grid = pyramid_.level[l];
  LevelLists& lists = levels_[l];
  const int step = 1 << (l - kMapLevel);
  int n = 0;
  for (int y = 0; y < grid.height; y++) {
    const uint8_t* from = active + int64_t(y) * step * pyramid_.level[kMapLevel].width;
    uint8_t* row = active_[l].row(y);
    for (int x = 0; x < grid.width; x++) {  // write always, count if active: no branch
      row[x] = from[x * step];
      lists.active_.at[n] = (y + 1) * grid.pitch() + x + 1;
      lists.active_.twice[n] = (2 * y + 1) * (2 * grid.width + 2) + 2 * x + 1;
      lists.active_.yx[n] = y << 16 | x;
      n += row[x];
    }
  }
  lists.active_.count = n;
}

void MaskLists::find_needed(int l) {
  const Grid grid = pyramid_.level[l];
  Map& needed = needed_[l];
  std::fill(needed.at.begin(), needed.at.end(), uint8_t(0));
  for (int y = 0; y < grid.height; y++) {
    const uint8_t* row = active_[l].row(y);
    for (int x = 0; x < grid.width; x++) wide_[x] = row[x - 1] | row[x] | row[x + 1];
    for (int dy = -1; dy <= 1; dy++) {
      uint8_t* out = needed.row(y + dy);
      for (int x = 0; x < grid.width; x++) out[x] |= wide_[x];
    }
  }
  std::vector<Pair> columns(std::size_t(pyramid_.level[kMapLevel].width));
  for (int fine = kMapLevel; fine < l; fine++) {
    const int shift = l - fine;
    for (int x = 0; x < pyramid_.level[fine].width; x++) columns[x] = sources(x, shift, grid.width);
    const auto& list = levels_[fine].needed_;
    for (int i = 0; i < list.count; i++) {
      const Pair y = sources(list.yx[i] >> 16, shift, grid.height);
      const Pair x = columns[list.yx[i] & 0xffff];
      uint8_t *low = needed.row(y.low), *high = needed.row(y.high);
      low[x.low] = low[x.high] = high[x.low] = high[x.high] = 1;
    }
  }
}

void MaskLists::find_to_interpolate(int l) {
  const Grid grid = pyramid_.level[l];
  LevelLists& lists = levels_[l];
  Map& keep = keep_[l];
  std::fill(keep.at.begin(), keep.at.end(), uint8_t(0));
  std::fill(std::begin(lists.histogram_), std::end(lists.histogram_), 0);
  const int pitch = keep.pitch;
  int n = 0, f = 0;
  for (int y = 0; y < grid.height; y++) {
    const uint8_t *needed = needed_[l].row(y), *active = active_[l].row(y);
    uint8_t* kept = keep.row(y);
    for (int x = 0; x < grid.width; x++) {
      const int at = (y + 1) * grid.pitch() + x + 1;
      lists.needed_.at[n] = at;
      lists.needed_.yx[n] = y << 16 | x;
      n += needed[x];
      if (!needed[x] || active[x]) continue;
      uint64_t around = 0;
      for (int row = 0; row < kSide; row++)
        around |= seven_bits(active + (row - kRadius) * pitch + x - kRadius) << (kSide * row);
      around &= used_[l];
      for (uint64_t bits = around; bits; bits &= bits - 1) {
        const int bit = __builtin_ctzll(bits);
        lists.histogram_[bit]++;
        kept[x + (bit / kSide - kRadius) * pitch + bit % kSide - kRadius] = 1;
      }
      lists.interpolated_.at[f] = at;
      lists.interpolated_.yx[f] = y << 16 | x;
      lists.around_[f++] = around;
    }
  }
  lists.needed_.count = n;
  lists.interpolated_.count = f;
  for (int i = 0; i < lists.active_.count; i++)
    lists.keep_[i] = keep.row(lists.active_.yx[i] >> 16)[lists.active_.yx[i] & 0xffff];
}

FullLists::FullLists(const Pyramid& pyramid) {
  for (int l = 1; l < kLevels; l++) {
    levels_[l] = LevelLists(pyramid.level[l]);
    levels_[l].set_all();
  }
}

int64_t FullLists::bytes_for(const Pyramid& pyramid) {
  int64_t total = 0;
  for (int l = 1; l < kLevels; l++) total += LevelLists::bytes_for(pyramid.level[l]);
  return total;
}

}  // namespace anytime
