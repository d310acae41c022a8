// What threads and processes of the host mean for the core: forks, floating-point traps, interrupts.
#pragma once

#include <cstdint>

#include "support/types.h"

namespace unrolled {

// More threads than this are not asked for.
constexpr Index kMostThreads = 1024;

// Long sweeps ask now and then, on any thread, whether the caller wants them to go on. From when
// `over` is set all threads leave, and nothing that the call has written is worth anything.
struct Stop {
    void (*ask)(Stop&);  // may set `over`, and may take its time
    int over = 0;
};

// Whether this process is the child of a fork: its OpenMP runtime has lost its threads, and entering
// a parallel region would wait for them forever.
bool forked();

// Forks between the process that loaded the library and this one.
int forks();

// While one of these is there, no floating-point operation of this thread traps, whatever the host has
// unmasked; then the host's masks and flags are back.
class Masked {
public:
    Masked();
    ~Masked();
    Masked(const Masked&) = delete;
    Masked& operator=(const Masked&) = delete;

private:
    std::uint64_t before_ = 0;
};

}  // namespace unrolled
