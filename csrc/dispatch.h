// Which instruction sets the core is written for, which of them this processor offers, and the
// builds of the kernels that go with them.
#pragma once

#include <cstdint>

#include "api.h"

namespace unrolled {

struct InstructionSet {
    const char* name;  // static storage
    bool available;    // on this processor, under this operating system
};

// Best first; the last one, "plain", is available everywhere.
// `count` receives the number of entries; the array has static storage and is never freed.
const InstructionSet* instruction_sets(int* count);

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

// Builds of the kernels that can run here, best first.
const std::vector<const Build*>& available_builds();

// A build by name, "" for the best; throws std::invalid_argument if it cannot run here.
const Build& find_build(const std::string& name);

}  // namespace unrolled
