// A call as a caller has it: sizes, and arrays as one flat list of addresses and numbers of elements,
// which are checked against the program before anything runs.
#pragma once

#include <string>
#include <vector>

#include "dispatch/call.h"
#include "dispatch/snapshot.h"

namespace unrolled {

using Numbers = std::vector<Index>;

// A call: its program; `shape`: T, N, I, rows of the caller's arrays, then of a dense batch the row of
// the first token and how far the next step and the next sequence are; threads.
//
// `arrays`, a pair each, (0, 0) for none: sizes, table, tokens, output, saved; weight and bias of the
// input and of each product; vectors; initial and final states. Backward, then: gradients of the
// output and of the final states; those to be made, of the tokens, the initial states, the vectors,
// weight and bias of the input and of each product.
struct Told {
    const Program* program;
    Numbers shape, arrays;
    Index groups = 1;  // backward: of the gradients of what all sequences share
    Storage storage = Storage::own;  // of all numbers but those saved, which are float
    Stop* stop = nullptr;
};

// A snapshot's run: `arrays` without what is saved and without weights, biases and vectors.
void run_snapshot(const Told& told, Snapshot& snapshot);

// They throw std::invalid_argument where the numbers do not fit the program. `wide`: double. Calls
// may share all but what they write.
void run_forward(const Told* calls, std::size_t count, const std::string& build, bool wide);
void run_backward(const Told* calls, std::size_t count, const std::string& build, bool wide);

}  // namespace unrolled
