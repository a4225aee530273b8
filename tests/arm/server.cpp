// Calls the kernels' C interface for a process of another architecture, over standard input and output.
//
// A call: the function's name and its arguments; an argument is a number, bytes, room for bytes that
// come back, or null. An answer: what the function returns, the last error, and the bytes of all rooms.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "api.h"

namespace {

struct Argument {
  char kind;
  int64_t whole = 0;
  double real = 0;
  std::vector<char> bytes;

  template <typename T>
  T* as() {
    return kind == 'n' ? nullptr : reinterpret_cast<T*>(kind == 'i' ? (char*)whole : bytes.data());
  }
};

void get(void* to, size_t count) {
  for (auto* at = static_cast<char*>(to); count;) {
    ssize_t got = read(0, at, count);
    if (got <= 0) std::exit(got < 0);
    at += got, count -= size_t(got);
  }
}

void put(const void* from, size_t count) {
  for (auto* at = static_cast<const char*>(from); count;) {
    ssize_t done = write(1, at, count);
    if (done <= 0) std::exit(1);
    at += done, count -= size_t(done);
  }
}

template <typename T>
T got() {
  T value;
  get(&value, sizeof value);
  return value;
}

void put_text(const std::string& text) {
  auto size = uint32_t(text.size());
  put(&size, sizeof size);
  put(text.data(), size);
}

}  // namespace

int main() {
  while (true) {
    std::string name(got<uint32_t>(), ' ');
    get(name.data(), name.size());
    std::vector<Argument> a(got<uint32_t>());
    for (Argument& each : a) {
      each.kind = got<char>();
      if (each.kind == 'i') each.whole = got<int64_t>();
      if (each.kind == 'd') each.real = got<double>();
      if (each.kind == 'b' || each.kind == 'o') each.bytes.resize(got<uint32_t>());
      if (each.kind == 'b') get(each.bytes.data(), each.bytes.size());
    }
    auto whole = [&](size_t k) { return int32_t(a[k].whole); };
    auto* model = a.empty() ? nullptr : a[0].as<AnytimeModel>();
    auto* plan = a.empty() ? nullptr : a[0].as<AnytimePlan>();
    auto* run = a.empty() ? nullptr : a[0].as<AnytimeRun>();
    auto reals = [&](size_t k) { return a[k].as<float>(); };
    auto octets = [&](size_t k) { return a[k].as<uint8_t>(); };
    int64_t result = 0;
    std::string text;
    if (name == "isa") {
      const char* isa = anytime_isa(whole(0));
      text = isa ? isa : "";
    } else if (name == "isa_works") result = anytime_isa_works(whole(0));
    else if (name == "threads") result = anytime_threads(whole(0));
    else if (name == "model_new") result = int64_t(anytime_model_new(whole(0)));
    else if (name == "model_free") anytime_model_free(model);
    else if (name == "model_conv")
      result = anytime_model_conv(model, reals(1), whole(2), whole(3), whole(4), whole(5), whole(6), whole(7),
                                  whole(8));
    else if (name == "model_depthwise")
      result = anytime_model_depthwise(model, reals(1), whole(2), whole(3), whole(4));
    else if (name == "model_norm")
      result = anytime_model_norm(model, reals(1), reals(2), reals(3), reals(4), whole(5));
    else if (name == "plan_new")
      result = int64_t(anytime_plan_new(model, whole(1), whole(2), a[3].as<AnytimeSlot>(), whole(4),
                                        a[5].as<AnytimeOp>(), whole(6), a[7].as<int32_t>(),
                                        a[8].as<int32_t>(), whole(9)));
    else if (name == "plan_free") anytime_plan_free(plan);
    else if (name == "plan_bytes") result = anytime_plan_bytes(plan);
    else if (name == "plan_run_bytes") result = anytime_plan_run_bytes(plan);
    else if (name == "run_new") result = int64_t(anytime_run_new(plan));
    else if (name == "run_free") anytime_run_free(run);
    else if (name == "run_bytes")
      result = anytime_run_bytes(run, octets(1), whole(2), whole(3), reals(4), reals(5));
    else if (name == "run_floats") result = anytime_run_floats(run, reals(1), whole(2), whole(3));
    else if (name == "run_advance") result = anytime_run_advance(run, whole(1), a[2].whole);
    else if (name == "run_settle")
      result = anytime_run_settle(run, whole(1), whole(2), float(a[3].real), float(a[4].real));
    else if (name == "run_mask") result = anytime_run_mask(run, octets(1));
    else if (name == "run_prior") result = anytime_run_prior(run, reals(1), octets(2));
    else if (name == "run_read") result = anytime_run_read(run, reals(1), reals(2), octets(3));
    else if (name == "run_read_slot") result = anytime_run_read_slot(run, whole(1), reals(2));
    else if (name == "cache_new") result = int64_t(anytime_cache_new(plan));
    else if (name == "cache_free") anytime_cache_free(a[0].as<AnytimeCache>());
    else if (name == "cache_bytes") result = anytime_cache_bytes(a[0].as<AnytimeCache>());
    else if (name == "run_hold") result = anytime_run_hold(run, a[1].as<AnytimeCache>(), octets(2));
    else if (name == "run_operation") result = anytime_run_operation(run);
    else if (name == "run_macs") result = anytime_run_macs(run);
    else if (name == "decode")
      result = anytime_decode(whole(0), reals(1), whole(2), whole(3), whole(4), a[5].whole, a[6].whole,
                              a[7].whole, whole(8), whole(9), octets(10));
    else if (name == "resize")
      result = anytime_resize(whole(0), octets(1), whole(2), whole(3), whole(4), whole(5), octets(6));
    else if (name == "block_differences")
      result = anytime_block_differences(octets(0), octets(1), whole(2), whole(3), whole(4), reals(5),
                                         reals(6));
    else std::exit(2);
    put(&result, sizeof result);
    const char* error = anytime_error();
    put_text(name == "isa" ? text : error ? error : "");
    for (Argument& each : a)
      if (each.kind == 'o') put(each.bytes.data(), each.bytes.size());
  }
}
