// Which instruction sets the core is written for, and which of them this processor offers.
// Choosing one for a call is here too, once kernels exist; running it is not.
#pragma once

namespace unrolled {

struct InstructionSet {
    const char* name;  // static storage
    bool available;    // on this processor, under this operating system
};

// Best first; the last one, "plain", is available everywhere.
// `count` receives the number of entries; the array has static storage and is never freed.
const InstructionSet* instruction_sets(int* count);

}  // namespace unrolled
