// The C interface: exceptions become error codes and messages, handles share ownership.
#include "api.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "held.hpp"
#include "plan.hpp"
#include "pool.hpp"
#include "resizing.hpp"

using anytime::kIsas;
using anytime::kMostChannels;
using anytime::Measure;
using anytime::Refusal;

struct AnytimeModel {
  std::shared_ptr<anytime::Model> model;
};
struct AnytimePlan {
  std::shared_ptr<const anytime::Plan> plan;
};
struct AnytimeRun {
  anytime::Run run;
};
struct AnytimeCache {
  std::shared_ptr<anytime::Cache> cache;
};

namespace {

thread_local char message[256] = "";

void say(const char* what) {
  std::strncpy(message, what, sizeof message - 1);
}

// Do something that returns a number; what it throws becomes a negative one.
template <class Work>
auto guarded(Work work) noexcept -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    say("out of memory");
    return ANYTIME_NO_MEMORY;
  } catch (const std::exception& e) {
    say(e.what());
    return ANYTIME_FAILED;
  }
}

// The same for what returns a handle: NULL.
template <class Work>
auto made(Work work) noexcept -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    say("out of memory");
  } catch (const std::exception& e) {
    say(e.what());
  }
  return nullptr;
}

const anytime::Kernels& kernels_of(int32_t isa) {
  if (isa < 0 || isa >= int32_t(kIsas.size()) || !kIsas[isa].works())
    throw Refusal("this CPU has no such instruction set");
  return *kIsas[isa].kernels;
}

}  // namespace

int32_t anytime_abi(void) { return ANYTIME_ABI; }

const char* anytime_error(void) { return message; }

const char* anytime_isa(int32_t i) {
  return i >= 0 && i < int32_t(kIsas.size()) ? kIsas[i].kernels->name : nullptr;
}

int32_t anytime_isa_works(int32_t i) {
  return i >= 0 && i < int32_t(kIsas.size()) && kIsas[i].works();
}

int32_t anytime_threads(int32_t count) {
  return guarded([&]() -> int32_t {
    if (count < 0 || count > anytime::Pool::kMost) throw Refusal("threads must be from 1 to 256");
    if (count > 0) anytime::Pool::shared().resize(count);
    return anytime::Pool::shared().threads();
  });
}

double anytime_peak(int32_t isa) {
  return guarded([&]() -> double {
    const anytime::Kernels& kernels = kernels_of(isa);
    constexpr int64_t kRounds = 1 << 18;
    constexpr int kTasks = 32;
    const auto start = std::chrono::steady_clock::now();
    std::atomic<float> sink{0};  // so that the work has an outcome
    anytime::Pool::shared().each(kTasks, [&](int, int) { sink = kernels.busy(kRounds); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return double(kTasks * kRounds) * double(kernels.busy_macs) / seconds.count();
  });
}

AnytimeModel* anytime_model_new(int32_t isa) {
  return made([&] {
    auto model = std::make_shared<anytime::Model>();
    model->kernels = &kernels_of(isa);
    return new AnytimeModel{std::move(model)};
  });
}

void anytime_model_free(AnytimeModel* model) { delete model; }

int32_t anytime_model_conv(AnytimeModel* handle, const float* weights, int32_t out_channels,
                           int32_t in_channels, int32_t kernel, int32_t stride, int32_t before,
                           int32_t dense, int32_t whole) {
  return guarded([&]() -> int32_t {
    anytime::Model& model = *handle->model;
    if (out_channels < 1 || out_channels > kMostChannels || in_channels < 1 ||
        in_channels > kMostChannels)
      throw Refusal("a convolution's channels are out of range");
    if ((kernel != 1 && kernel != 3) || (stride != 1 && stride != 2))
      throw Refusal("a convolution must be 1x1 or 3x3, of stride 1 or 2");
    if (before < 0 || before > kernel / 2 || kernel - 1 - before > stride)
      throw Refusal("a convolution's window must reach one pixel beyond the border at most");
    if (whole && model.kernels->whole == nullptr)
      throw Refusal("only instruction sets for bytes have other convolutions beside theirs");
    const anytime::Kernels& kernels = whole ? *model.kernels->whole : *model.kernels;
    if (in_channels % kernels.depth)
      throw Refusal("this instruction set takes " + std::to_string(kernels.depth) +
                    " input channels at a time");
    if (dense && (kernel != 3 || stride != 1 || before != 1))
      throw Refusal("only a 3x3 convolution of stride 1 can be dense");
    model.convs.push_back(
        dense && kernels.conv_winograd != nullptr && !whole
            ? anytime::make_winograd_conv(kernels, weights, out_channels, in_channels)
            : anytime::make_conv(kernels, weights, out_channels, in_channels, kernel, stride,
                                 before));
    return int32_t(model.convs.size()) - 1;
  });
}

int32_t anytime_model_depthwise(AnytimeModel* handle, const float* weights, int32_t channels,
                                int32_t kernel, int32_t stride) {
  return guarded([&]() -> int32_t {
    anytime::Model& model = *handle->model;
    if (model.kernels->depthwise == nullptr)
      throw Refusal("this instruction set has no depthwise convolutions");
    if (channels < 1 || channels > kMostChannels)
      throw Refusal("a convolution's channels are out of range");
    if (kernel < 1 || kernel > anytime::kMostDepthwise || kernel % 2 == 0 || stride < 1 ||
        stride > 2 || stride > kernel)
      throw Refusal("a depthwise convolution must be 1x1, 3x3, 5x5 or 7x7, of stride 1 or 2");
    model.convs.push_back(
        anytime::make_depthwise(*model.kernels, weights, channels, kernel, stride));
    return int32_t(model.convs.size()) - 1;
  });
}

int32_t anytime_model_norm(AnytimeModel* handle, const float* scale, const float* bias,
                           const float* shift, const float* window, int32_t channels) {
  return guarded([&]() -> int32_t {
    if (channels < 1) throw Refusal("a norm must have channels");
    auto& norms = handle->model->norms;
    norms.push_back(anytime::make_norm(scale, bias, shift, window, channels));
    return int32_t(norms.size()) - 1;
  });
}

AnytimePlan* anytime_plan_new(const AnytimeModel* handle, int32_t padded_height,
                              int32_t padded_width, const AnytimeSlot* slots, int32_t slot_count,
                              const AnytimeOp* ops, int32_t op_count, const int32_t* heads,
                              const int32_t* ends, int32_t stage_count) {
  return made([&]() -> AnytimePlan* {
    if (slot_count < 0 || op_count < 0 || stage_count < 0) throw Refusal("a count is negative");
    return new AnytimePlan{std::make_shared<const anytime::Plan>(
        handle->model, padded_height, padded_width,
        std::vector<AnytimeSlot>(slots, slots + slot_count),
        std::vector<AnytimeOp>(ops, ops + op_count),
        heads == nullptr ? std::vector<int32_t>() : std::vector<int32_t>(heads, heads + stage_count),
        std::vector<int32_t>(ends, ends + stage_count))};
  });
}

void anytime_plan_free(AnytimePlan* plan) { delete plan; }

int64_t anytime_plan_bytes(const AnytimePlan* handle) { return handle->plan->scratch_bytes(); }

int64_t anytime_plan_run_bytes(const AnytimePlan* handle) { return handle->plan->run_bytes(); }

AnytimeRun* anytime_run_new(const AnytimePlan* handle) {
  return made([&] { return new AnytimeRun{anytime::Run(handle->plan)}; });
}

void anytime_run_free(AnytimeRun* run) { delete run; }

int32_t anytime_run_bytes(AnytimeRun* handle, const uint8_t* bytes, int32_t height, int32_t width,
                          const float* scale, const float* offset) {
  return guarded([&]() -> int32_t {
    handle->run.start(bytes, nullptr, height, width, scale, offset);
    return ANYTIME_OK;
  });
}

int32_t anytime_run_floats(AnytimeRun* handle, const float* floats, int32_t height,
                           int32_t width) {
  return guarded([&]() -> int32_t {
    handle->run.start(nullptr, floats, height, width, nullptr, nullptr);
    return ANYTIME_OK;
  });
}

int32_t anytime_run_advance(AnytimeRun* handle, int32_t exit, int64_t slice_us) {
  return guarded([&]() -> int32_t { return handle->run.advance(exit, slice_us) ? 1 : 0; });
}

int32_t anytime_run_settle(AnytimeRun* handle, int32_t measure, int32_t decide, float least,
                           float most) {
  return guarded([&]() -> int32_t {
    if (measure < 0 || measure > int32_t(Measure::maximum)) throw Refusal("unknown measure");
    handle->run.settle(Measure(measure), decide != 0, least, most);
    return ANYTIME_OK;
  });
}

int32_t anytime_run_mask(AnytimeRun* handle, const uint8_t* active) {
  return guarded([&]() -> int32_t {
    handle->run.mask(active);
    return ANYTIME_OK;
  });
}

int32_t anytime_run_prior(AnytimeRun* handle, const float* map, const uint8_t* active) {
  return guarded([&]() -> int32_t {
    handle->run.apply_prior(map, active);
    return ANYTIME_OK;
  });
}

AnytimeCache* anytime_cache_new(const AnytimePlan* handle) {
  return made([&] { return new AnytimeCache{std::make_shared<anytime::Cache>(handle->plan)}; });
}

void anytime_cache_free(AnytimeCache* cache) { delete cache; }

int64_t anytime_cache_bytes(const AnytimeCache* handle) { return handle->cache->bytes(); }

int32_t anytime_run_hold(AnytimeRun* handle, AnytimeCache* cache, const uint8_t* fresh) {
  return guarded([&]() -> int32_t {
    handle->run.hold(cache == nullptr ? nullptr : cache->cache, fresh);
    return ANYTIME_OK;
  });
}

int32_t anytime_run_read(const AnytimeRun* handle, float* map, float* confidence,
                         uint8_t* active) {
  return guarded([&]() -> int32_t {
    handle->run.read(map, confidence, active);
    return ANYTIME_OK;
  });
}

int32_t anytime_run_read_slot(const AnytimeRun* handle, int32_t slot, float* values) {
  return guarded([&]() -> int32_t {
    handle->run.read_slot(slot, values);
    return ANYTIME_OK;
  });
}

int32_t anytime_run_operation(const AnytimeRun* handle) { return handle->run.operation(); }

int64_t anytime_run_macs(const AnytimeRun* handle) { return handle->run.macs(); }

int32_t anytime_resize(int32_t isa, const uint8_t* image, int32_t height, int32_t width,
                       int32_t out_height, int32_t out_width, uint8_t* out) {
  return guarded([&]() -> int32_t {
    if (height < 1 || width < 1 || out_height < 1 || out_width < 1)
      throw Refusal("an image has at least one pixel");
    anytime::resize(kernels_of(isa), image, height, width, out_height, out_width, out);
    return ANYTIME_OK;
  });
}

int32_t anytime_decode(int32_t isa, const float* map, int32_t height, int32_t width,
                       int32_t channels, int64_t row, int64_t column, int64_t channel,
                       int32_t out_height, int32_t out_width, uint8_t* labels) {
  return guarded([&]() -> int32_t {
    if (height < 1 || width < 1 || channels < 1 || channels > anytime::kMostOutputs ||
        out_height < 0 || out_width < 0 || out_height > 4 * height || out_width > 4 * width)
      throw Refusal("a map of these sizes cannot be decoded");
    const anytime::DecodeCall call{map, height,  width,      channels,  row,
                                   column, channel, out_height, out_width, labels};
    const auto decode = kernels_of(isa).decode;
    constexpr int kRows = 8;
    anytime::Pool::shared().each((out_height + kRows - 1) / kRows, [&](int task, int) {
      const int first = task * kRows;
      decode(call, first, std::min(first + kRows, out_height));
    });
    return ANYTIME_OK;
  });
}
