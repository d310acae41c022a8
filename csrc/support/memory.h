// Memory that sweeps use again and again.
#pragma once

#include "support/types.h"

namespace unrolled {

// Memory for a sweep, aligned to cache lines, not initialised; throws std::bad_alloc. What is given
// back is kept for later sweeps, up to a limit: fresh pages from the system cost as much as some
// sweeps take.
void* take_memory(Index bytes);
void give_memory(void* memory);

// Throws std::bad_alloc.
[[noreturn]] void out_of_memory();

// While one of these is there, this thread takes memory that may be given back at any time, by any
// thread.
class Lasting {
public:
    Lasting();
    ~Lasting();
    Lasting(const Lasting&) = delete;
    Lasting& operator=(const Lasting&) = delete;

private:
    bool before_;
};

}  // namespace unrolled
