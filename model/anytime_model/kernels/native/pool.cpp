#include "pool.hpp"

#include <pthread.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace anytime {
namespace {

constexpr int kSpins = 4000;  // some 40 us

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

Pool* pool = nullptr;

// A forked child has none of its parent's threads. It forgets the pool and makes its own; the old
// one cannot be destroyed there, as its threads cannot be joined.
void forget() { pool = nullptr; }

}  // namespace

Pool& Pool::shared() {
  static std::mutex lock;
  static const int registered = pthread_atfork(nullptr, nullptr, forget);
  (void)registered;
  std::lock_guard guard(lock);
  if (pool == nullptr) pool = new Pool;  // never destroyed: threads may outlive main()'s statics
  return *pool;
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  stopping_ = true;
  job_ += 2;
  job_.notify_all();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
  stopping_ = false;
}

void Pool::resize(int threads) {
  std::lock_guard guard(one_job_);
  if (threads == this->threads()) return;
  stop();
  workers_.reserve(threads - 1);
  threads_ = threads;
  for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
}

void Pool::take(int worker) {
  for (int task; (task = next_.fetch_add(1)) < count_;) function_(body_, task, worker);
}

void Pool::run(int count, int most, Function function, const void* body) {
  if (count <= 1) {
    for (int task = 0; task < count; task++) function(body, task, 0);
    return;
  }
  std::lock_guard guard(one_job_);
  count_ = count;
  most_ = most;
  function_ = function;
  body_ = body;
  next_ = 0;
  job_ += 1;  // open
  job_.notify_all();
  take(0);
  job_ += 1;  // closed: a worker that comes now turns back
  for (int spins = 0; inside_ != 0; spins++) {
    if (spins < kSpins) relax();
    else std::this_thread::yield();
  }
}

void Pool::work(int worker) {
  uint32_t seen = job_;
  while (!stopping_) {
    for (int spins = 0; spins < kSpins && job_ == seen; spins++) relax();
    job_.wait(seen);
    seen = job_;
    inside_ += 1;
    // Only now may the job be looked at: while it is open after `inside_` was raised, the caller
    // cannot finish without waiting for us.
    if (job_ % 2 == 1 && worker < most_) take(worker);
    inside_ -= 1;
  }
}

}  // namespace anytime
