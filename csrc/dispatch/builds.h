// Instruction sets of the core, which of them this processor has, and the builds of the kernels for them.
#pragma once

#include <string>
#include <vector>

#include "dispatch/build.h"

namespace unrolled {

struct InstructionSet {
    const char* name;  // static storage
    bool available;    // on this processor, under this operating system
};

// Best first; the last one, "plain", is available everywhere.
// `count` receives the number of entries; the array has static storage and is never freed.
const InstructionSet* instruction_sets(int* count);

// Builds of the kernels that can run here, best first.
const std::vector<const Build*>& available_builds();

// A build by name, "" for the best; throws std::invalid_argument if it cannot run here.
const Build& find_build(const std::string& name);

}  // namespace unrolled
