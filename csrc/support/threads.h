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
