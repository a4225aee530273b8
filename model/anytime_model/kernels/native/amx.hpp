// Convolution at a list of pixels by AMX, whose tile registers have 16 rows of 64 bytes.
//
// The sums of 16 pixels x 16 channels fill one tile register. One instruction multiplies 64 bytes of
// the windows of 16 pixels by the weights of 16 channels for them and adds the products to the sums:
// 8,192 multiply-adds of bf16, 16,384 of bytes. A row of a window lies contiguous in memory, so that
// its bytes are taken 64 at a time, and those that are left over by a tile of fewer columns: nothing
// beyond the window is read. Where the 16 pixels are neighbours, as nearly always without a mask,
// their windows lie a fixed step apart and are loaded as they are; elsewhere they are gathered first.
// Weights are packed as for conv.hpp, but that channels beyond whole registers are padded: a tile
// that is mostly zeros still takes less than dot products.
//
// The instructions are written as assembly, since the compilers' intrinsics neither take the number
// of a tile as a template's parameter nor say that they read memory.
#pragma once

#include "conv.hpp"

namespace anytime {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row
constexpr int kMostTileSums = 4;

// The tile registers by their use; sums are in the first `kMostTileSums`.
constexpr int kInputTile = 4, kInputTileEnd = 5, kWeightTile = 6, kWeightTileEnd = 7;

// How the tile registers are divided for windows whose rows end with so many bytes, as long as this
// lives. See Intel 64 and IA-32 Architectures Software Developer's Manual, LDTILECFG.
class TileShapes {
 public:
  ANYTIME_INLINE explicit TileShapes(int end_bytes) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int i = 0; i <= kWeightTileEnd; i++) {
      shapes.row_bytes[i] = kTileBytes;
      shapes.rows[i] = kTileRows;
    }
    if (end_bytes > 0) {
      shapes.row_bytes[kInputTileEnd] = uint16_t(end_bytes);
      shapes.rows[kWeightTileEnd] = uint8_t(end_bytes / 4);
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes));
  }
  ANYTIME_INLINE ~TileShapes() { asm volatile("tilerelease"); }
  TileShapes(const TileShapes&) = delete;
};

template <class E>
ANYTIME_INLINE int window_row_bytes(const ConvCall& c) {  // tiles are whole in units of 4
  return (c.conv->kernel * c.conv->in_channels * int(sizeof(E)) + 3) / 4 * 4;
}

template <int tile>
ANYTIME_INLINE void load_tile(const void* from, int64_t step) {  // bytes from one row to the next
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(step), "i"(tile) : "memory");
}

template <int count, int n = 0>
ANYTIME_INLINE void clear_sums() {
  asm volatile("tilezero %%tmm%c0" ::"i"(n));
  if constexpr (n + 1 < count) clear_sums<count, n + 1>();
}

template <int count, int n = 0>
ANYTIME_INLINE void store_sums(float* to) {  // one tile after another
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(int64_t(kTileBytes)), "i"(n) : "memory");
  if constexpr (n + 1 < count) store_sums<count, n + 1>(to + kTileRows * Simd::lanes);
}

// Sixteen pixels of the list, one for each row of a tile.
struct TilePixels {
  const int32_t* from;
  int64_t pixel;  // bytes
  int64_t step;   // bytes from one to the next where they lie evenly, or 0

  TilePixels() = default;
  ANYTIME_INLINE TilePixels(const ConvCall& c, const int32_t* first, int count, int element)
      : from(first), pixel(int64_t(c.conv->in_channels) * element) {
    // They are in scan order, and at least `stride` apart.
    const int apart = (kTileRows - 1) * c.conv->stride;
    step = count >= kTileRows && from[kTileRows - 1] - from[0] == apart ? c.conv->stride * pixel : 0;
  }

  // Their bytes from `start` on, which is where those of pixel 0 are.
  template <int tile>
  ANYTIME_INLINE void load(const char* start, __mmask64 wanted) const {
    if (step > 0) {
      load_tile<tile>(start + from[0] * pixel, step);
      return;
    }
    alignas(64) char gathered[kTileRows * kTileBytes];
    ANYTIME_UNROLL
    for (int p = 0; p < kTileRows; p++)
      _mm512_store_si512(gathered + p * kTileBytes,
                         _mm512_maskz_loadu_epi8(wanted, start + from[p] * pixel));
    load_tile<tile>(gathered, kTileBytes);
  }
};

// Sums of N registers of channels of each of P tiles of pixels += inputs times weights.
template <class A, int P, int N, int inputs, int weights, int p = 0, int n = 0>
ANYTIME_INLINE void multiply(const TilePixels (&pixels)[P], const char* start, __mmask64 wanted,
                             const char* w) {
  if constexpr (n == 0) pixels[p].template load<inputs>(start, wanted);
  load_tile<weights>(w + n * kTileBytes, N * kTileBytes);
  A::template multiply_tiles<p * N + n, inputs, weights>();
  if constexpr (n + 1 < N) multiply<A, P, N, inputs, weights, p, n + 1>(pixels, start, wanted, w);
  else if constexpr (p + 1 < P) multiply<A, P, N, inputs, weights, p + 1>(pixels, start, wanted, w);
}

template <int N>
struct Affine {  // what is done to the sums of a group
  Simd::V scale[N], bias[N];

  explicit Affine(const ConvCall& c, const Group& g) {
    for (int n = 0; n < N; n++) {
      const int channel = g.first + n * Simd::lanes;
      scale[n] = c.scale ? Simd::load(c.scale + channel) : Simd::all(1);
      bias[n] = c.bias ? Simd::load(c.bias + channel) : Simd::zero();
    }
  }
};

template <class A, class O, int P, int N>
ANYTIME_INLINE void tiles(const ConvCall& c, const Group& g, const Affine<N>& affine,
                          const int32_t* from, const int32_t* at, const uint8_t* keep, int count) {
  using E = typename A::Element;
  const Window<E> window(c);
  const char* start = reinterpret_cast<const char*>(window.in);
  const char* w = reinterpret_cast<const char*>(static_cast<const E*>(c.conv->weights) + g.offset);
  const int bytes = window_row_bytes<E>(c), end = bytes % kTileBytes, whole = bytes - end;
  const __mmask64 all = ~uint64_t(0), some = (uint64_t(1) << end) - 1;
  TilePixels pixels[P];
  for (int p = 0; p < P; p++)
    pixels[p] = TilePixels(c, from + p * kTileRows, count - p * kTileRows, sizeof(E));
  if (c.residual != nullptr) {
    for (int p = 0; p < P * kTileRows; p++)
      ANYTIME_UNROLL
      for (int n = 0; n < N; n++)
        __builtin_prefetch(static_cast<const O*>(c.residual) + int64_t(at[p]) * c.out_pitch +
                           g.first + n * Simd::lanes);
  }
  clear_sums<P * N>();
  for (int row = 0; row < window.rows; row++) {
    for (int i = 0; i < whole; i += kTileBytes) {
      multiply<A, P, N, kInputTile, kWeightTile>(pixels, start + i, all, w);
      w += N * kTileRows * kTileBytes;
    }
    if (end > 0) {
      multiply<A, P, N, kInputTileEnd, kWeightTileEnd>(pixels, start + whole, some, w);
      w += N * end / 4 * kTileBytes;
    }
    start += window.step * int64_t(sizeof(E));
  }
  alignas(64) float sums[P * N][kTileRows][Simd::lanes];  // or integers, of as many bytes
  store_sums<P * N>(sums[0][0]);
  const int rest = g.channels - (N - 1) * Simd::lanes;
  const auto mask = Simd::first(rest);
  for (int p = 0; p < count; p++) {
    const int64_t where = int64_t(at[p]) * c.out_pitch + g.first;
    ANYTIME_UNROLL
    for (int n = 0; n < N; n++)
      finish<O>(c, where + n * Simd::lanes, keep[p],
                A::end_tile(sums[p / kTileRows * N + n][p % kTileRows], affine.scale[n],
                            affine.bias[n]),
                mask, n < N - 1 || rest == Simd::lanes);
  }
}

template <class A, class O, int N>
void tile_group(const ConvCall& call, const Group& group, int first, int last) {
  // Sums of a tile wait for one another, so that it takes four of them to keep the unit busy.
  constexpr int P = N <= kMostTileSums / 2 ? 2 : 1;
  const ConvCall c = call;
  const Group g = group;
  const Affine<N> affine(c, g);
  const TileShapes shapes(window_row_bytes<typename A::Element>(c) % kTileBytes);
  const int pairs = first + (last - first) / (P * kTileRows) * (P * kTileRows);
  const auto go = [&]<int p>(int begin, int end) __attribute__((always_inline)) {
    in_tiles<p * kTileRows>(
        c, begin, end,
        [&](const int32_t* from, const int32_t* at, const uint8_t* keep, int count)
            __attribute__((always_inline)) {
              tiles<A, O, p, N>(c, g, affine, from, at, keep, count);
            });
  };
  go.template operator()<P>(first, pairs);
  if (pairs < last) go.template operator()<1>(pairs, last);
}

template <class A, class O>
void tile_conv(const ConvCall& c, int group, int first, int last) {
  const Group& g = c.conv->groups[group];
  switch (g.vectors) {
    case 1: return tile_group<A, O, 1>(c, g, first, last);
    case 2: return tile_group<A, O, 2>(c, g, first, last);
    case 3: return tile_group<A, O, 3>(c, g, first, last);
    case 4: return tile_group<A, O, 4>(c, g, first, last);
  }
}

// What the tiles can do at best, see `busy`: the sums' tiles in turn.
constexpr int64_t tile_busy_macs(int depth) {
  return int64_t(kMostTileSums) * kTileRows * Simd::lanes * kTileRows * depth;
}

template <class A>
float tile_busy(int64_t rounds) {
  alignas(64) char none[kTileRows * kTileBytes] = {};
  alignas(64) float sums[kTileRows * kMostTileSums * Simd::lanes];
  const TileShapes shapes(0);
  clear_sums<kMostTileSums>();
  load_tile<kInputTile>(none, kTileBytes);
  load_tile<kWeightTile>(none, kTileBytes);
  for (; rounds > 0; rounds--) {
    A::template multiply_tiles<0, kInputTile, kWeightTile>();
    A::template multiply_tiles<1, kInputTile, kWeightTile>();
    A::template multiply_tiles<2, kInputTile, kWeightTile>();
    A::template multiply_tiles<3, kInputTile, kWeightTile>();
  }
  store_sums<kMostTileSums>(sums);
  return sums[0];
}

// A table's kernels, but that convolutions go by tiles.
template <class A>
constexpr Kernels with_tiles(Kernels all) {
  all.dot_products = false;
  all.conv = tile_conv<A, typename A::Element>;
  all.conv_to_float = tile_conv<A, float>;
  all.busy = tile_busy<A>;
  all.busy_macs = tile_busy_macs(A::depth);
  return all;
}

}  // namespace
}  // namespace anytime
