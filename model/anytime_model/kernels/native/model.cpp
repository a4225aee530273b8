// How output channels are divided into groups, and which instruction sets there are.
#include "model.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(ANYTIME_AVX2_INT8)
#include <cpuid.h>
#endif


#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

namespace anytime {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kHugePage = 2 << 20;
constexpr int kPadding = 64;  // floats beyond a vector of biases, for whole-register loads

// Interpolation weights below this share of the output are dropped, all of them together.
constexpr float kNegligible = 1e-7f;

bool always() { return true; }
#if defined(ANYTIME_AVX2)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
#if defined(ANYTIME_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("fma");
}
#endif
#if defined(ANYTIME_AVX512_BF16)
bool has_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif
#if defined(ANYTIME_AVX512_INT8)
bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif
#if defined(ANYTIME_AVX2_INT8)
bool has_avx_vnni() {  // which GCC 12 cannot be asked for
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}
#endif

#if defined(ANYTIME_AMX)
// Linux gives tile registers to a process that has asked for them, to all its threads at once.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, of asm/prctl.h
  static const bool may = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return may;
#else
  return false;
#endif
}
bool has_amx(int bit) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr int kTile = 24;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx >> kTile & 1) != 0 &&
         (edx >> bit & 1) != 0 && may_use_tiles();
}
bool has_amx_bf16() { return has_bf16() && has_amx(22); }
bool has_amx_int8() { return has_avx512_vnni() && has_amx(25); }
#endif

#if defined(__linux__)
// Pages of their own, on the border of a huge page: the allocator would keep what a large buffer
// leaves behind, in pieces that no other size fits into.
void* map_pages(int64_t bytes) {
  const std::size_t whole = std::size_t(bytes + kHugePage);
  void* const found =
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) throw std::bad_alloc();
  char* const begin = static_cast<char*>(found);
  const std::size_t before = std::size_t(-std::intptr_t(begin) & (kHugePage - 1));
  if (before > 0) munmap(begin, before);
  if (before < std::size_t(kHugePage)) munmap(begin + before + bytes, kHugePage - before);
  // A request that the system may refuse. With small pages, walking a wide map misses the TLB.
  madvise(begin + before, std::size_t(bytes), MADV_HUGEPAGE);
  return begin + before;
}
#endif

// Whole registers in as few groups of equal size as possible; the channels left over in one more
// register if they fill more than half of it, otherwise as dot products, if there are any.
std::vector<Group> divide(const Kernels& k, int channels) {
  std::vector<Group> groups;
  int vectors = channels / k.lanes, rest = channels % k.lanes;
  if (rest > 0 && (rest > k.lanes / 2 || !k.dot_products)) vectors++, rest = 0;
  const int parts = (vectors + k.most_vectors - 1) / k.most_vectors;
  int first = 0;
  for (int i = 0; i < parts; i++) {
    const int size = vectors / parts + (i < vectors % parts);
    const int covered = std::min(size * k.lanes, channels - first);
    groups.push_back({size, first, covered, 0});
    first += covered;
  }
  if (rest > 0) {
    int dots = 1;
    while (dots < rest) dots *= 2;
    groups.push_back({-dots, first, rest, 0});
  }
  return groups;
}

int64_t group_elements(const Kernels& k, const Group& g, int in_channels, int kernel) {
  const int64_t length = int64_t(kernel) * in_channels;
  if (g.vectors > 0) return kernel * length * g.vectors * k.lanes;
  const int64_t span = int64_t(k.lanes) * k.depth;
  return kernel * ((length + span - 1) / span) * span * -g.vectors;
}

}  // namespace

const std::vector<Isa> kIsas = {
#if defined(ANYTIME_AMX)
    {&kAmxInt8, has_amx_int8},
#endif
#if defined(ANYTIME_AVX512_INT8)
    {&kAvx512Int8, has_avx512_vnni},
#endif
#if defined(ANYTIME_AVX2_INT8)
    {&kAvx2Int8, has_avx_vnni},
#endif
    {&kPortableInt8, always},
#if defined(ANYTIME_AMX)
    {&kAmxBf16, has_amx_bf16},
#endif
#if defined(ANYTIME_AVX512_BF16)
    {&kAvx512Bf16, has_bf16},
#endif
#if defined(ANYTIME_AVX512)
    {&kAvx512, has_avx512},
#endif
#if defined(ANYTIME_AVX2)
    {&kAvx2, has_avx2},
#endif
    {&kPortable, always},
};

Buffer::Buffer(int64_t bytes) {
  const int64_t step = bytes < kHugePage ? kLine : kHugePage;
  bytes_ = (bytes + kLine + step - 1) / step * step;
#if defined(__linux__)
  if (step == kHugePage) {
    data_ = {map_pages(bytes_), FreeMemory{bytes_}};
    std::memset(data_.get(), 0, bytes_);  // takes the pages now, not in the middle of a stage
    return;
  }
#endif
  data_.reset(std::aligned_alloc(std::size_t(step), std::size_t(bytes_)));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_.get(), 0, bytes_);
}

void FreeMemory::operator()(void* p) const {
#if defined(__linux__)
  if (mapped > 0) {
    munmap(p, std::size_t(mapped));
    return;
  }
#endif
  std::free(p);
}

std::unique_ptr<Conv> make_conv(const Kernels& k, const float* oihw, int out_channels,
                                int in_channels, int kernel, int stride, int before) {
  auto conv = std::make_unique<Conv>();
  conv->kernels = &k;
  conv->groups = divide(k, out_channels);
  int64_t elements = 0;
  for (Group& g : conv->groups) {
    g.offset = elements;
    elements += group_elements(k, g, in_channels, kernel);
  }
  conv->weights = Buffer(elements * k.element_size);
  for (const Group& g : conv->groups)
    k.pack(oihw, in_channels, kernel, g,
           static_cast<char*>(conv->weights.get()) + g.offset * k.element_size);
  conv->packed = {in_channels, out_channels, kernel, stride, before, false, conv->weights.get(),
                  conv->groups.data(), int(conv->groups.size()), nullptr};
  conv->macs = int64_t(kernel) * kernel * in_channels * out_channels;
  return conv;
}

std::unique_ptr<Conv> make_depthwise(const Kernels& k, const float* weights, int channels, int kernel,
                                     int stride) {
  auto conv = std::make_unique<Conv>();
  conv->kernels = &k;
  const int taps = kernel * kernel, padded = (channels + k.lanes - 1) / k.lanes * k.lanes;
  conv->weights = Buffer(int64_t(taps) * padded * sizeof(float));
  float* to = static_cast<float*>(conv->weights.get());
  for (int tap = 0; tap < taps; tap++)
    for (int c = 0; c < channels; c++) to[int64_t(tap) * padded + c] = weights[int64_t(c) * taps + tap];
  conv->packed = {channels, channels, kernel, stride, (kernel - stride) / 2, true,
                  conv->weights.get(), nullptr, 0, nullptr};
  conv->macs = kernel == 1 ? 0 : int64_t(taps) * channels;
  return conv;
}

std::unique_ptr<Conv> make_winograd_conv(const Kernels& k, const float* oihw, int out_channels,
                                      int in_channels) {
  // Each point's weights, of the three along a row.
  constexpr double kCombine[kWinogradPoints][3] = {{1. / 4, 0, 0},
                                           {-1. / 6, -1. / 6, -1. / 6},
                                           {-1. / 6, 1. / 6, -1. / 6},
                                           {1. / 24, 1. / 12, 1. / 6},
                                           {1. / 24, -1. / 12, 1. / 6},
                                           {0, 0, 1}};
  auto conv = std::make_unique<Conv>();
  conv->kernels = &k;
  std::vector<float> combined(std::size_t(out_channels) * 3 * in_channels);
  for (const auto& factors : kCombine) {
    for (int o = 0; o < out_channels; o++)
      for (int i = 0; i < in_channels; i++)
        for (int y = 0; y < 3; y++) {
          const float* w = oihw + ((int64_t(o) * in_channels + i) * 3 + y) * 3;
          combined[(std::size_t(o) * 3 + y) * in_channels + i] =
              float(factors[0] * w[0] + factors[1] * w[1] + factors[2] * w[2]);
        }
    conv->points.push_back(make_conv(k, combined.data(), out_channels, 3 * in_channels, 1, 1, 0));
    conv->packed_points.push_back(conv->points.back()->packed);
  }
  conv->packed = {in_channels, out_channels, 3, 1, 1, false, nullptr, nullptr, 0, conv->packed_points.data()};
  conv->macs = int64_t(9) * in_channels * out_channels;
  return conv;
}

std::unique_ptr<Norm> make_norm(const float* scale, const float* bias, const float* shift,
                                const float* window, int channels) {
  auto norm = std::make_unique<Norm>();
  norm->channels = channels;
  norm->bias = Buffer((channels + kPadding) * sizeof(float));
  norm->shift = Buffer((channels + kPadding) * sizeof(float));
  norm->scale = Buffer((channels + kPadding) * sizeof(float));
  float* to = static_cast<float*>(norm->scale.get());
  for (int k = 0; k < channels; k++) to[k] = scale != nullptr ? scale[k] : 1;
  std::memcpy(norm->bias.get(), bias, channels * sizeof(float));
  std::memcpy(norm->shift.get(), shift, channels * sizeof(float));
  norm->used = 0;
  if (window == nullptr) return norm;
  std::memcpy(norm->window, window, sizeof norm->window);
  for (int bit = 0; bit < kWindow; bit++)
    if (std::fabs(window[bit]) > kNegligible / kWindow) norm->used |= uint64_t(1) << bit;
  return norm;
}

}  // namespace anytime
