// A pool of memory that sweeps reuse.
#pragma once

#include "support/types.h"

namespace unrolled {

// Memory for a sweep, aligned to cache lines, not initialized; throws std::bad_alloc. Released memory is kept
// for later sweeps, up to a limit: fresh pages from the system can cost as much as a sweep.
void* allocate_memory(Index bytes);
void release_memory(void* memory);

// Throws std::bad_alloc.
[[noreturn]] void out_of_memory();

// While it exists, this thread allocates memory that any thread may release at any time.
class LongLivedMemory {
public:
    LongLivedMemory();
    ~LongLivedMemory();
    LongLivedMemory(const LongLivedMemory&) = delete;
    LongLivedMemory& operator=(const LongLivedMemory&) = delete;

private:
    bool previous_;
};

}  // namespace unrolled
