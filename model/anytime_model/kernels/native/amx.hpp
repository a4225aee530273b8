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
class Tiles {
 public:
  ANYTIME_INLINE explicit Tiles(int end_bytes) {
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
  ANYTIME_INLINE ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
};

template <int tile>
ANYTIME_INLINE void load_tile(const void* from, int64_t step) {  // bytes from one row to the next
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(step), "i"(tile) : "memory");
}

template <int N, int n = 0>
ANYTIME_INLINE void clear_sums() {
  asm volatile("tilezero %%tmm%c0" ::"i"(n));
  if constexpr (n + 1 < N) clear_sums<N, n + 1>();
}

template <int N, int n = 0>
ANYTIME_INLINE void store_sums(void* to) {
  constexpr int64_t step = N * kTileBytes;
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(static_cast<char*>(to) + n * kTileBytes),
               "r"(step), "i"(n)
               : "memory");
  if constexpr (n + 1 < N) store_sums<N, n + 1>(to);
}

// Sums of N registers of channels += the inputs' tile times each one's weights.
template <class A, int N, int inputs, int weights, int n = 0>
ANYTIME_INLINE void multiply_inputs(const char* w) {
  load_tile<weights>(w + n * kTileBytes, N * kTileBytes);
  A::template multiply_tiles<n, inputs, weights>();
  if constexpr (n + 1 < N) multiply_inputs<A, N, inputs, weights, n + 1>(w);
}

template <class A, class O, int N>
ANYTIME_INLINE void sixteen_pixels(const ConvCall& c, const Group& g, const Simd::V (&scale)[N],
                                   const Simd::V (&bias)[N], const int32_t* from,
                                   const int32_t* at, const uint8_t* keep, int count) {
  using E = typename A::Element;
  const PackedConv& conv = *c.conv;
  const Window<E> window(c);
  const char* const in = reinterpret_cast<const char*>(window.in);
  const char* w = reinterpret_cast<const char*>(static_cast<const E*>(conv.weights) + g.offset);
  const int64_t pixel = int64_t(conv.in_channels) * sizeof(E);
  const int bytes = (window.length * int(sizeof(E)) + 3) / 4 * 4;
  const int end = bytes % kTileBytes, whole = bytes - end;
  const __mmask64 end_mask = (uint64_t(1) << end) - 1;
  // Pixels are in scan order, and at least `stride` apart.
  const bool even = count == kTileRows && from[kTileRows - 1] - from[0] == (kTileRows - 1) * conv.stride;
  alignas(64) char gathered[kTileRows * kTileBytes];
  clear_sums<N>();
  if (c.residual != nullptr) {
    for (int p = 0; p < kTileRows; p++)
      ANYTIME_UNROLL
      for (int n = 0; n < N; n++)
        __builtin_prefetch(static_cast<const O*>(c.residual) + int64_t(at[p]) * c.out_pitch +
                           g.first + n * Simd::lanes);
  }
  for (int row = 0; row < window.rows; row++) {
    const char* const start = in + row * window.step * int64_t(sizeof(E));
    for (int i = 0; i < whole; i += kTileBytes) {
      if (even) {
        load_tile<kInputTile>(start + from[0] * pixel + i, conv.stride * pixel);
      } else {
        ANYTIME_UNROLL
        for (int p = 0; p < kTileRows; p++)
          _mm512_store_si512(gathered + p * kTileBytes,
                             _mm512_loadu_si512(start + from[p] * pixel + i));
        load_tile<kInputTile>(gathered, kTileBytes);
      }
      multiply_inputs<A, N, kInputTile, kWeightTile>(w);
      w += N * kTileRows * kTileBytes;
    }
    if (end > 0) {
      if (even) {
        load_tile<kInputTileEnd>(start + from[0] * pixel + whole, conv.stride * pixel);
      } else {
        ANYTIME_UNROLL
        for (int p = 0; p < kTileRows; p++)
          _mm512_store_si512(gathered + p * kTileBytes,
                             _mm512_maskz_loadu_epi8(end_mask, start + from[p] * pixel + whole));
        load_tile<kInputTileEnd>(gathered, kTileBytes);
      }
      multiply_inputs<A, N, kInputTileEnd, kWeightTileEnd>(w);
      w += N * end / 4 * kTileBytes;
    }
  }
  alignas(64) float sums[kTileRows * N * Simd::lanes];  // or integers, of as many bytes
  store_sums<N>(sums);
  const int rest = g.channels - (N - 1) * Simd::lanes;
  const auto mask = Simd::first(rest);
  for (int p = 0; p < count; p++) {
    const int64_t where = int64_t(at[p]) * c.out_pitch + g.first;
    ANYTIME_UNROLL
    for (int n = 0; n < N; n++)
      finish<O>(c, where + n * Simd::lanes, keep[p],
                A::end_tile(sums + (p * N + n) * Simd::lanes, scale[n], bias[n]), mask,
                n < N - 1 || rest == Simd::lanes);
  }
}

template <class A, class O, int N>
void tile_group(const ConvCall& call, const Group& group, int first, int last) {
  const ConvCall c = call;
  const Group g = group;
  Simd::V scale[N], bias[N];
  for (int n = 0; n < N; n++) {
    const int channel = g.first + n * Simd::lanes;
    scale[n] = c.scale ? Simd::load(c.scale + channel) : Simd::all(1);
    bias[n] = c.bias ? Simd::load(c.bias + channel) : Simd::zero();
  }
  const int bytes = c.conv->kernel * c.conv->in_channels * int(sizeof(typename A::Element));
  const Tiles tiles((bytes + 3) / 4 * 4 % kTileBytes);
  in_tiles<kTileRows>(
      c, first, last,
      [&](const int32_t* from, const int32_t* at, const uint8_t* keep, int count)
          __attribute__((always_inline)) {
            sixteen_pixels<A, O, N>(c, g, scale, bias, from, at, keep, count);
          });
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
  const Tiles tiles(0);
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

}  // namespace
}  // namespace anytime
