/* Moves the wall clock of the processes that load it before the C library, by the seconds that stand
   as 8 bytes in the file of $WALL_CLOCK at each moment. The monotonic clock stays. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t* ahead_s;

__attribute__((constructor)) static void begin(void) {
  const char* name = getenv("WALL_CLOCK");
  int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void* found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (found != MAP_FAILED) ahead_s = found;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  int failed = syscall(SYS_clock_gettime, clock, now) != 0;
  if (!failed && clock == CLOCK_REALTIME && ahead_s) now->tv_sec += *ahead_s;
  return failed ? -1 : 0;
}

int gettimeofday(struct timeval* restrict now, void* restrict zone) {
  struct timespec found;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &found);
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* now) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (now) *now = found.tv_sec;
  return found.tv_sec;
}
