// A call as the caller describes it: sizes, and arrays as one flat list of addresses and numbers of elements.
// Both are checked against the program before anything runs.
#pragma once

#include <string>
#include <vector>

#include "dispatch/call.h"
#include "dispatch/prepared.h"
#include "dispatch/snapshot.h"

namespace unrolled {

using IndexList = std::vector<Index>;

// Sizes of a call: `rows` are those of the caller's arrays of tokens. `token_rows` has no table here: a
// table is one of the arrays.
struct CallShape {
    Index T, N, I, rows;
    TokenRows token_rows;
    Index threads;
};

// From T, N, I, rows, start, stride_t, stride_n, threads.
CallShape shape_of(const IndexList& numbers);

// A call whose arrays are not yet checked.
//
// `arrays` has a pair for each array, (address, elements), or (0, 0) for none, in this order: sizes,
// table, tokens, output, saved; weight and bias of the input product and of each recurrent product;
// vectors; initial and final states. In backward gradients follow: inputs are those of the output and
// of the final states; outputs are those of the tokens, the initial states, the vectors, weight and bias
// of the input product and of each recurrent product.
struct RawCall {
    const Program* program;
    CallShape shape;
    IndexList arrays;
    Index groups = 1;                            // see Gradients
    NumberFormat format = NumberFormat::native;  // of all arrays but the saved one, which is float
    CancelFlag* cancel = nullptr;
    bool bf16_products = false;    // see Call; in format bfloat16 always
    WeightCache* cache = nullptr;  // see Call
};

// Both throw std::invalid_argument if arrays do not match the program. `wide`: double instead of float.
// Calls may share inputs, not outputs.
void run_forward(const RawCall* calls, std::size_t count, const std::string& build, bool wide);
void run_backward(const RawCall* calls, std::size_t count, const std::string& build, bool wide);

// Sets up a sweep for calls with the program and the sizes of this one, which is in float32 and has at most
// kMaxPreparedTokens tokens; and runs one. The caller deletes the sweep.
PreparedSweep* prepare_forward(const RawCall& call, const std::string& build);
void run_prepared(PreparedSweep& sweep, const IndexList& arrays);

// Runs a snapshot, which has its own parameters: `arrays` lacks the saved one, weights, biases and
// vectors.
void run_snapshot(const RawCall& call, Snapshot& snapshot);

}  // namespace unrolled
