// The words that all kernels share: grids, buffers' layout, lists of sites, and what a call is.
//
// Layout. A feature map of h x w x C is stored with the channels of a pixel side by side (NHWC) and
// a border of one zero pixel all around, so that a 3x3 convolution never asks whether it is inside.
// The pixel (y, x) has the index (y + 1) * (w + 2) + (x + 1); its first element is that times C.
// Nobody ever writes the border.
//
// Sites. No kernel loops over an image. It loops over a list of pixels: all of them, or those that
// a mask leaves active. A list is made once for each mask and resolution and shared by every layer.
//
// Nothing here may include a standard header with inline functions: the files that include this one
// are compiled for different instruction sets, and the linker would mix their copies.
#pragma once

#include <stdint.h>

#define ANYTIME_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define ANYTIME_UNROLL _Pragma("unroll")
#else
#define ANYTIME_UNROLL _Pragma("GCC unroll 32")
#endif

namespace anytime {

using bf16 = uint16_t;  // the upper half of a float

constexpr int kRadius = 3;                           // of the interpolation's window
constexpr int kSide = 2 * kRadius + 1;               // 7
constexpr int kWindow = kSide * kSide;               // 49 taps, row by row
constexpr int kBusySums = 10;                        // see Kernels::busy
constexpr int kWinogradOutputs = 4;                  // pixels side by side, see winograd.hpp
constexpr int kWinogradPoints = kWinogradOutputs + 2;
constexpr int kMostWinogradTiles = 12;               // in a call
constexpr int kMostDepthwise = 7;                    // side of a depthwise kernel
constexpr int kMostTerms = 4;                        // maps that a weighted sum may have
constexpr int kMostOutputs = 256;                    // classes or joints
constexpr int kWeightBits = 22;                      // of a resized image's weights, see Taps
constexpr int32_t kHalfWeight = 1 << (kWeightBits - 1);

struct Grid {
  int height = 0;
  int width = 0;
  int pitch() const { return width + 2; }
  int64_t pixels() const { return int64_t(height) * width; }
  int64_t stored() const { return int64_t(height + 2) * (width + 2); }
};

// A list of pixels of one resolution, in scan order.
struct Sites {
  const int32_t* at = nullptr;      // index of the pixel, border counted
  const int32_t* twice = nullptr;   // index of pixel (2y, 2x) in the map of twice the size
  const int32_t* yx = nullptr;      // y << 16 | x, border not counted
  const uint8_t* keep = nullptr;    // 1 where an interpolation will ask for the value before ReLU
  const uint64_t* around = nullptr; // for sites to interpolate: bit 7 (dy+3) + dx+3 set where active
  int count = 0;

  Sites from(int first) const {
    Sites rest = *this;
    rest.at += first;
    if (twice != nullptr) rest.twice += first;
    rest.yx += first;
    rest.keep += first;
    if (around != nullptr) rest.around += first;
    rest.count -= first;
    return rest;
  }
};

// Output channels computed together. `vectors` > 0: so many registers of channels side by side;
// `vectors` < 0: -vectors single channels, each a dot product along the row of the window.
struct Group {
  int vectors;
  int first;       // channel
  int channels;    // that exist; the rest of the last register is padding
  int64_t offset;  // of its weights
};

struct PackedConv {
  int in_channels;
  int out_channels;
  int kernel;  // 1 or 3; up to kMostDepthwise, odd, of a depthwise convolution
  int stride;  // 1 or 2
  int before;  // rows and columns of the window above and left of the pixel that it belongs to
  bool depthwise;  // every channel by itself; weights are floats, see depthwise.hpp
  const void* weights;
  const Group* groups;
  int group_count;
  const PackedConv* points;  // nullptr, or in place of weights those of the kWinogradPoints points
};

// What a call for so many Winograd tiles needs beside its output, floats.
constexpr int64_t winograd_room(const PackedConv& conv, int tiles) {
  return int64_t(kWinogradPoints) * tiles * (3 * conv.in_channels + conv.out_channels);
}

enum class Activation : int32_t { none = 0, relu = 1, relu6 = 2 };

struct ConvCall {
  const PackedConv* conv;
  const void* in;
  Grid in_grid;
  const int32_t* from;   // indices of the inputs; those of the outputs are in `sites`
  Sites sites;
  void* out;
  int out_pitch;         // elements of a pixel of out: out_channels, or padded to a multiple of depth
  const void* residual;  // nullptr, or laid out as out
  float residual_scale;  // of bytes
  float* kept;           // nullptr, or where values before ReLU go, laid out as out
  const float* bias;     // nullptr, or one for each output channel, padded to whole registers
  const float* scale;    // of sums of bytes, as `bias`
  Activation activation;
};

struct InterpolationCall {
  Sites sites;
  int channels;
  int pitch;
  const float* kept;
  void* out;
  const void* residual;
  float residual_scale;  // of bytes
  const float* shift;   // what normalisation adds after the interpolation
  const float* window;  // 49 weights
  uint64_t used;        // bits of the window whose weights matter
  Activation activation;
};

struct SumTerm {
  const void* in;
  Grid grid;
  int shift;  // the term's map is 2^shift times smaller than the sum's (pooling not counted)
  float scale;  // of bytes
  bool floats;  // of a table of kernels for bytes: the term is floats nevertheless
};

struct WeightedSumCall {
  Sites sites;
  int channels;      // of every term
  int terms;
  SumTerm term[kMostTerms];
  bool pool;         // the output is the mean of 2x2 of the sum
  void* out;
  int out_channels;  // of the output buffer
  int first;         // channel to write to
  float* kept;
  const float* bias;
  const float* scale;  // of bytes, for each channel of the sum; there if `bias` is
  Activation activation;
};

struct ImageCall {
  const uint8_t* bytes;   // h x w x 3, or nullptr
  const float* floats;    // 3 x h x w, already normalised, or nullptr
  int height, width;      // of the image; what lies outside repeats its border
  Grid grid;              // of the padded image
  int channels;           // 3, or 4 with a zero
  void* out;
  float scale[3], offset[3];  // value = byte * scale + offset
};

enum class Measure : int32_t { probability = 0, entropy = 1, maximum = 2 };

struct ConfidenceCall {
  const float* logits;
  int channels;
  Sites sites;
  int width;
  bool heat;            // confidence is the largest value itself, not its probability
  bool entropy;         // `measure` gets the entropy, else the confidence
  float* confidence;    // h x w
  float* measure;       // h x w
};

struct DecodeCall {
  const float* logits;  // no border
  int height, width, channels;
  int64_t row, column, channel;  // floats from one to the next
  int out_height, out_width;
  uint8_t* labels;
};

// What each row, or column, of a resized image is a weighted mean of: `count` ones side by side.
struct Taps {
  const int32_t* first;
  const int32_t* weights;  // `count` for each; their sum is 1 << kWeightBits, but for rounding
  int count;
  int inside;  // so many, the first ones, have taps that do not reach the end
};

struct ResizeCall {
  const uint8_t* in;   // rows of in_width x 3
  int in_width;
  uint8_t* out;        // rows of out_width x 3
  int out_width;
  Taps taps;
};

// One instruction set's kernels. Each call does the part [first, last) of its list (rows, for
// images and labels), so that several threads can share it and none takes long.
struct Kernels {
  const char* name;
  int lanes;         // floats in a register
  int depth;         // input channels that one multiply-add takes: 1, 2 for bf16, 4 for bytes
  int most_vectors;  // in a group
  bool dot_products; // for channels beyond whole registers; else those fill up another one
  int element_size;  // of activations, bytes
  void (*pack)(const float* oihw, int in_channels, int kernel, const Group& group, void* out);
  void (*conv)(const ConvCall&, int group, int first, int last);
  void (*conv_to_float)(const ConvCall&, int group, int first, int last);
  void (*depthwise)(const ConvCall&, int first, int last);  // or nullptr
  void (*conv_winograd)(const ConvCall&, int first, int last, float* room);  // or nullptr
  void (*interpolate)(const InterpolationCall&, int first, int last);
  void (*weighted_sum)(const WeightedSumCall&, int first, int last);
  void (*weighted_sum_floats)(const WeightedSumCall&, int first, int last);
  void (*image)(const ImageCall&, int first, int last);
  void (*confidence)(const ConfidenceCall&, int first, int last);
  void (*decode)(const DecodeCall&, int first, int last);
  void (*resize_columns)(const ResizeCall&, int first, int last);
  void (*resize_rows)(const ResizeCall&, int first, int last);
  float (*busy)(int64_t rounds);  // independent multiply-adds and nothing else,
  int64_t busy_macs;              // so many of numbers a round
  const Kernels* whole;  // of kernels for bytes, those for layers that stay in floats; or nullptr
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kAvx512Bf16;
extern const Kernels kPortableInt8;
extern const Kernels kAvx2Int8;
extern const Kernels kAvx512Int8;
extern const Kernels kAmxBf16;
extern const Kernels kAmxInt8;

}  // namespace anytime
