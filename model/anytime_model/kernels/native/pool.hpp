// Threads of our own, shared by everything in the process.
//
// One job at a time: whoever else wants to run one waits, so that several engines together never
// use more threads than there are cores. The caller works too. Tasks are taken one by one from a
// counter, so a thread that starts late or is put aside by the system takes fewer; the caller never
// waits for a thread that has not begun. Threads spin for a moment between jobs, since in a run the
// next one comes microseconds later, and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace anytime {

class Pool {
 public:
  static Pool& shared();

  static constexpr int kMost = 256;

  int threads() const { return threads_; }
  void resize(int threads);

  // Call body(task, worker) for every task in [0, count), in any order, from several threads;
  // workers are numbered from 0, below `most`, and do one task at a time.
  template <class Body>
  void each(int count, const Body& body, int most = kMost) {
    const auto call = [](const void* b, int task, int worker) {
      (*static_cast<const Body*>(b))(task, worker);
    };
    run(count, most, call, &body);
  }

  ~Pool();
  Pool() = default;
  Pool(const Pool&) = delete;

 private:
  using Function = void (*)(const void*, int, int);
  void run(int count, int most, Function, const void* body);
  void work(int worker);
  void take(int worker);
  void stop();

  std::mutex one_job_;
  std::atomic<int> threads_{1};
  std::vector<std::thread> workers_;
  std::atomic<uint32_t> job_{0};      // counts up; odd while a job is open
  std::atomic<bool> stopping_{false};
  std::atomic<int> inside_{0};        // workers that look at the job's description
  std::atomic<int> next_{0};
  int count_ = 0, most_ = 0;
  Function function_ = nullptr;
  const void* body_ = nullptr;
};

}  // namespace anytime
