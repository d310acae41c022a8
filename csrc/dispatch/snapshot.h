// Layers and linear maps whose weights are packed once for many calls.
#pragma once

#include <cstddef>
#include <vector>

#include "dispatch/call.h"

namespace unrolled {

// How a snapshot keeps its weights: in float, in bfloat16, or in int8 with a scale for each row.
enum class Kept { own, bfloat16, int8 };

// The parameters of a layer in one direction, borrowed for as long as there is a snapshot of it.
struct Parameters {
    const Program* program;
    Index I;
    Weights<float> input;
    std::vector<Weights<float>> products;
    std::vector<const float*> vectors;
};

// N sequences that take steps one at a time, on at most so many threads. A step takes no memory.
class Steps {
public:
    Steps(const Parameters& parameters, Index N, Index threads);
    virtual ~Steps();
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;
    virtual void step(const float* tokens, float* output) = 0;  // [N, I], [N, width of the output]
    virtual float* state(std::size_t k, Index n) = 0;           // [width], the one before the next step

protected:
    Call<float> call_;  // of steps without end: token n of each is row n
};

// A layer's weights in one direction, packed once for many calls, which only read it. What a token's
// numbers are depends neither on its neighbours nor on how many steps a call has.
class Snapshot {
public:
    explicit Snapshot(const Parameters& parameters);
    virtual ~Snapshot();
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;
    void run(Call<float> call);          // whose parameters are not looked at
    virtual Steps* steps(Index N, Index threads) = 0;  // new, for no longer than the snapshot

protected:
    virtual void sweep(const Call<float>& call) = 0;
    const Parameters given_;
};

// y = W x + b for rows of x, W packed once.
class Affine {
public:
    virtual ~Affine();
    virtual void apply(const float* rows, Index count, float* to) = 0;
};

// What is done to rows of numbers in place.
enum class Activation { relu, tanh, sigmoid, softmax, log_softmax };

}  // namespace unrolled
