// Threads and processes of the host: interrupts, forks, floating-point traps.
#pragma once

#include <cstdint>

#include "support/types.h"

namespace unrolled {

// The most threads that a call uses.
constexpr Index kMaxThreads = 1024;

// Long sweeps call `poll` from time to time, on any of their threads. Once `cancelled` is set all threads
// return, and what the call has written is undefined.
struct CancelFlag {
    void (*poll)(CancelFlag&);  // may set `cancelled`, and may block
    int cancelled = 0;
};

// Whether this process is the child of a fork: its OpenMP runtime has lost its threads, and a parallel region
// would wait for them forever.
bool forked();

// Forks between the process that loaded the library and this one.
int forks();

// Nanoseconds of a clock that never goes back.
Index now();

// Threads that wait for one another lose much where other processes use the cores: a thread that was put to
// sleep comes back after a time slice. So each thread that comes late is reported, and for a while fewer
// threads are trusted to be in time: half as many. The while is longer each time that threads come late soon
// after a new attempt, and short again once they were in time for long enough. All sweeps of the process
// share this.
void report_late_thread(Index threads);
void report_threads_in_time(Index nanoseconds);

// How many threads may wait for one another at present, and the nanoseconds until `threads` may.
Index trusted_threads();
Index distrusted_for(Index threads);

// After so many nanoseconds a thread for which others wait is late, unless a round takes about as long.
Index max_wait();

// For tests: sets max_wait(), and for how long threads are distrusted at first; negative numbers restore
// the defaults. Forgets reports.
void set_max_wait(Index wait, Index distrust);

// Waits at most so many nanoseconds, without using a core, until wake_sleepers() sets `ended`.
void sleep_until(const int& ended, Index nanoseconds);
void wake_sleepers(int& ended);

// Sleeps for about as long as it takes to wake a thread.
void sleep_briefly();

// Moves the calling thread to another core, if it may use one.
void leave_core(int core);

// A lock for short or rare work. A copy that was made by a fork while a thread of the parent held the
// lock would have no owner: the lock records in which process it was taken, and is free in others.
class ForkSafeLock {
public:
    explicit ForkSafeLock(int& process);
    ~ForkSafeLock();
    ForkSafeLock(const ForkSafeLock&) = delete;
    ForkSafeLock& operator=(const ForkSafeLock&) = delete;

    // Whether a thread of the parent held the lock at the fork, so that its work is half done.
    bool interrupted_by_fork() const { return interrupted_; }

private:
    int& process_;  // 0: free
    bool interrupted_ = false;
};

// While it exists, no floating-point operation of this thread traps; afterwards the host's masks and flags
// are restored.
class MaskedFloatTraps {
public:
    MaskedFloatTraps();
    ~MaskedFloatTraps();
    MaskedFloatTraps(const MaskedFloatTraps&) = delete;
    MaskedFloatTraps& operator=(const MaskedFloatTraps&) = delete;

private:
    std::uint64_t previous_ = 0;
};

}  // namespace unrolled
