// Convolution at a list of pixels.
//
// Vector lanes run along output channels. A tile is P pixels x N registers of accumulators; for
// every input element of the window it loads N registers of weights once, and multiplies them by
// one broadcast input of each pixel. So the weights' loads are shared by P pixels and the inputs' by
// N registers, and it makes no difference whether the P pixels are neighbours: they are P pointers.
// A row of a window lies contiguous in memory (its 3 pixels x channels), so the loop is over rows,
// then along a row; weights are packed in that order.
//
// Widths such as 18 and 36 leave 2 or 4 channels beyond whole registers. Padding them would waste
// most of a register, so those channels are dot products instead: lanes run along the row of the
// window, the weights of a channel along with them, and one sum across lanes ends it.
//
// What follows the sum is done while it is still in registers: bias, residual, activation. Where an
// interpolation will need the value before ReLU and residual, it is also kept aside.
#pragma once

#include "elements.hpp"

namespace anytime {
namespace {

template <class E>
struct Window {  // where a pixel's window starts, and how to go through it
  const E* in;
  int64_t step;  // from one row to the next
  int rows, length;

  explicit Window(const ConvCall& c) {
    const PackedConv& p = *c.conv;
    rows = p.kernel;
    length = p.kernel * p.in_channels;
    step = int64_t(c.in_grid.pitch()) * p.in_channels;
    in = static_cast<const E*>(c.in) - p.before * (step + p.in_channels);
  }
};

// The last lines of every tile: what happens to one register of sums.
template <class O>
ANYTIME_INLINE void finish(const ConvCall& c, int64_t where, bool keep, Simd::V sum,
                           Simd::Mask mask, bool whole) {
  O* out = static_cast<O*>(c.out) + where;
  if (keep && c.kept != nullptr) {
    if (whole) Simd::store(c.kept + where, sum);
    else Simd::store(c.kept + where, sum, mask);
  }
  if (c.residual != nullptr) {
    const O* other = static_cast<const O*>(c.residual) + where;
    sum = add_residual<O>(sum, whole ? load(other) : load(other, mask), c.residual_scale);
  }
  sum = activate_as<O>(c.activation, sum);
  if (whole) store(out, sum);
  else store(out, sum, mask);
}

template <class A, class O, int P, int N>
ANYTIME_INLINE void tile(const ConvCall& c, const Group& g, const int32_t* from, const int32_t* at,
                         const uint8_t* keep, int count) {
  using E = typename A::Element;
  using V = Simd::V;
  const PackedConv& conv = *c.conv;
  const Window<E> window(c);
  const auto* w = static_cast<const typename A::Stored*>(conv.weights) + g.offset;
  const E* q[P];
  V scale[N], bias[N];
  ANYTIME_UNROLL
  for (int n = 0; n < N; n++) {
    const int channel = g.first + n * Simd::lanes;
    scale[n] = c.scale ? Simd::load(c.scale + channel) : Simd::all(1);
    bias[n] = c.bias ? Simd::load(c.bias + channel) : Simd::zero();
  }
  typename A::Sum sum[P][N];
  ANYTIME_UNROLL
  for (int p = 0; p < P; p++) {
    q[p] = window.in + int64_t(from[p]) * conv.in_channels;
    ANYTIME_UNROLL
    for (int n = 0; n < N; n++) sum[p][n] = A::start(bias[n]);
  }
  if (c.residual != nullptr) {  // it may come from far away: ask for it now, it is added last
    ANYTIME_UNROLL
    for (int p = 0; p < P; p++)
      ANYTIME_UNROLL
      for (int n = 0; n < N; n++)
        __builtin_prefetch(static_cast<const O*>(c.residual) + int64_t(at[p]) * c.out_pitch +
                           g.first + n * Simd::lanes);
  }
  for (int row = 0; row < window.rows; row++) {
    for (int64_t i = 0; i < window.length; i += A::depth) {
      typename A::Weight weight[N];
      ANYTIME_UNROLL
      for (int n = 0; n < N; n++) weight[n] = A::weight(w + n * Simd::lanes * A::depth);
      ANYTIME_UNROLL
      for (int p = 0; p < P; p++) {
        const auto x = A::broadcast(q[p] + i);
        ANYTIME_UNROLL
        for (int n = 0; n < N; n++) sum[p][n] = A::multiply_add(x, weight[n], sum[p][n]);
      }
      w += N * Simd::lanes * A::depth;
    }
    ANYTIME_UNROLL
    for (int p = 0; p < P; p++) q[p] += window.step;
  }
  const int rest = g.channels - (N - 1) * Simd::lanes;
  const auto mask = Simd::first(rest);
  ANYTIME_UNROLL
  for (int p = 0; p < P; p++) {
    if (p >= count) break;
    const int64_t where = int64_t(at[p]) * c.out_pitch + g.first;
    ANYTIME_UNROLL
    for (int n = 0; n < N; n++)
      finish<O>(c, where + n * Simd::lanes, keep[p], A::end(sum[p][n], scale[n], bias[n]), mask,
                n < N - 1 || rest == Simd::lanes);
  }
}

// R single channels of P pixels, P * R = the lanes of a register, so that one transposing sum ends it.
template <class A, class O, int P, int R>
ANYTIME_INLINE void dots(const ConvCall& c, const Group& g, Simd::V scale, Simd::V bias,
                         const int32_t* from, const int32_t* at, const uint8_t* keep, int count) {
  static_assert(P * R == Simd::lanes);
  using E = typename A::Element;
  constexpr int span = Simd::lanes * A::depth;
  const PackedConv& conv = *c.conv;
  const Window<E> window(c);
  const auto* w = static_cast<const typename A::Stored*>(conv.weights) + g.offset;
  const int whole = window.length / span, rest = window.length % span;
  const E* q[P];
  typename A::Sum sum[P * R];
  ANYTIME_UNROLL
  for (int p = 0; p < P; p++) q[p] = window.in + int64_t(from[p]) * conv.in_channels;
  ANYTIME_UNROLL
  for (int i = 0; i < P * R; i++) sum[i] = A::start(Simd::zero());
  const auto add = [&](auto load_input) __attribute__((always_inline)) {
    typename A::Weight x[P];
    ANYTIME_UNROLL
    for (int p = 0; p < P; p++) x[p] = load_input(p);
    ANYTIME_UNROLL
    for (int r = 0; r < R; r++) {
      const auto weight = A::weight(w + r * span);
      ANYTIME_UNROLL
      for (int p = 0; p < P; p++) sum[p * R + r] = A::multiply_add(x[p], weight, sum[p * R + r]);
    }
    w += R * span;
  };
  for (int row = 0; row < window.rows; row++) {
    for (int i = 0; i < whole; i++)
      add([&](int p) __attribute__((always_inline)) { return A::weight(q[p] + i * span); });
    if (rest)
      add([&](int p) __attribute__((always_inline)) { return A::some(q[p] + whole * span, rest); });
    ANYTIME_UNROLL
    for (int p = 0; p < P; p++) q[p] += window.step;
  }
  Simd::V value = A::end_dots(sum, scale, bias);
  // The channels of one pixel after those of another, in a register and here.
  const auto each_channel = [&](const auto& body) __attribute__((always_inline)) {
    for (int p = 0; p < count; p++) {
      const int64_t where = int64_t(at[p]) * c.out_pitch + g.first;
      for (int r = 0; r < g.channels; r++) body(p, p * R + r, where + r);
    }
  };
  if (c.kept != nullptr) {
    float kept[P * R];
    Simd::store(kept, value);
    each_channel([&](int p, int i, int64_t where) __attribute__((always_inline)) {
      if (keep[p]) c.kept[where] = kept[i];
    });
  }
  O beside[P * R] = {};
  if (c.residual != nullptr) {
    const O* const residual = static_cast<const O*>(c.residual);
    each_channel([&](int, int i, int64_t where) __attribute__((always_inline)) {
      beside[i] = residual[where];
    });
    value = add_residual<O>(value, load(beside), c.residual_scale);
  }
  store(beside, activate_as<O>(c.activation, value));
  O* const out = static_cast<O*>(c.out);
  each_channel([&](int, int i, int64_t where) __attribute__((always_inline)) {
    out[where] = beside[i];
  });
}

// Go through the list P pixels at a time. At its end the last pixel is repeated, computed and not
// stored, which costs less than another set of tiles.
template <int P, class Tile>
ANYTIME_INLINE void in_tiles(const ConvCall& c, int first, int last, Tile do_tile) {
  const int32_t* from = c.from;
  const int32_t* at = c.sites.at;
  int i = first;
  for (; i + P <= last; i += P) do_tile(from + i, at + i, c.sites.keep + i, P);
  if (i == last) return;
  int32_t ends_from[P], ends_at[P];
  uint8_t ends_keep[P];
  for (int p = 0; p < P; p++) {
    const int j = i + p < last ? i + p : last - 1;
    ends_from[p] = from[j];
    ends_at[p] = at[j];
    ends_keep[p] = c.sites.keep[j];
  }
  do_tile(ends_from, ends_at, ends_keep, last - i);
}

template <class A, class O, int N>
void lane_group(const ConvCall& call, const Group& group, int first, int last) {
  constexpr int P = Simd::tile_pixels(N);
  const ConvCall c = call;  // what is stored may alias the originals, for all that the compiler knows
  const Group g = group;
  in_tiles<P>(c, first, last,
              [&](const int32_t* from, const int32_t* at, const uint8_t* keep, int count)
                  __attribute__((always_inline)) { tile<A, O, P, N>(c, g, from, at, keep, count); });
}

template <class A, class O, int R>
void dot_group(const ConvCall& call, const Group& group, int first, int last) {
  constexpr int P = Simd::lanes / R;
  const ConvCall c = call;
  const Group g = group;
  float scales[P * R] = {}, biases[P * R] = {};
  for (int i = 0; i < P * R; i++) {
    const int r = i % R;
    if (r < g.channels && c.scale != nullptr) scales[i] = c.scale[g.first + r];
    if (r < g.channels && c.bias != nullptr) biases[i] = c.bias[g.first + r];
  }
  const Simd::V scale = Simd::load(scales), bias = Simd::load(biases);
  in_tiles<P>(c, first, last,
              [&](const int32_t* from, const int32_t* at, const uint8_t* keep, int count)
                  __attribute__((always_inline)) {
                    dots<A, O, P, R>(c, g, scale, bias, from, at, keep, count);
                  });
}

template <class A, class O>
void conv(const ConvCall& c, int group, int first, int last) {
  const Group& g = c.conv->groups[group];
  switch (g.vectors) {
    case 1: return lane_group<A, O, 1>(c, g, first, last);
    case 2: return lane_group<A, O, 2>(c, g, first, last);
    case 3: return lane_group<A, O, 3>(c, g, first, last);
    case 4: return lane_group<A, O, 4>(c, g, first, last);
    case -1: return dot_group<A, O, 1>(c, g, first, last);
    case -2: return dot_group<A, O, 2>(c, g, first, last);
    case -4:
      if constexpr (Simd::lanes >= 8) return dot_group<A, O, 4>(c, g, first, last);
      break;
    case -8:
      if constexpr (Simd::lanes >= 16) return dot_group<A, O, 8>(c, g, first, last);
      break;
  }
}

// What the arithmetic units can do at best, to compare the loops above with.
template <class A>
constexpr int64_t busy_macs = int64_t(kBusySums) * Simd::lanes * A::depth;

template <class A>
float busy(int64_t rounds) {
  using E = typename A::Stored;
  alignas(64) E small[Simd::lanes * A::depth] = {};
  small[0] = from_float<E>(float(rounds & 1));  // so that nothing is known when this is compiled
  const auto x = A::weight(small);
  typename A::Sum sum[kBusySums];
  ANYTIME_UNROLL
  for (int i = 0; i < kBusySums; i++) sum[i] = A::all(i);
  for (; rounds > 0; rounds--) {
    ANYTIME_UNROLL
    for (int i = 0; i < kBusySums; i++) sum[i] = A::multiply_add(x, x, sum[i]);
  }
  Simd::V total = Simd::zero();
  ANYTIME_UNROLL
  for (int i = 0; i < kBusySums; i++)
    total = Simd::add(total, A::end(sum[i], Simd::all(1), Simd::zero()));
  float lanes[Simd::lanes];
  Simd::store(lanes, total);
  return lanes[0];
}

// Bring a group's weights from (out, in, ky, kx) into the order in which the loops above read them.
template <class A>
void pack(const float* oihw, int in_channels, int kernel, const Group& g, void* packed) {
  using E = typename A::Stored;
  E* out = static_cast<E*>(packed);
  const int length = kernel * in_channels;
  const auto weight = [&](int channel, int row, int i) {
    if (channel >= g.channels || i >= length) return 0.0f;
    const int column = i / in_channels, in = i % in_channels;
    return oihw[((int64_t(g.first + channel) * in_channels + in) * kernel + row) * kernel + column];
  };
  if (g.vectors > 0) {
    for (int row = 0; row < kernel; row++)
      for (int i = 0; i < length; i += A::depth)
        for (int lane = 0; lane < g.vectors * Simd::lanes; lane++)
          for (int d = 0; d < A::depth; d++) *out++ = from_float<E>(weight(lane, row, i + d));
  } else {
    constexpr int span = Simd::lanes * A::depth;
    for (int row = 0; row < kernel; row++)
      for (int i = 0; i < length; i += span)
        for (int r = 0; r < -g.vectors; r++)
          for (int j = 0; j < span; j++) *out++ = from_float<E>(weight(r, row, i + j));
  }
}

}  // namespace
}  // namespace anytime
