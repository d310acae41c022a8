// Layers and linear maps whose weights are packed once for many calls.
#pragma once

#include <cstddef>
#include <vector>

#include "dispatch/call.h"

namespace unrolled {

// How packed weights are stored: in float, in bfloat16, or in int8 with a scale for each row.
enum class WeightFormat { float32, bfloat16, int8 };

// The parameters of a layer in one direction, borrowed as long as the snapshot exists.
struct Parameters {
    const Program* program;
    Index I;
    Weights<float> input;
    std::vector<Weights<float>> products;
    std::vector<const float*> vectors;
};

// Runs N sequences one step at a time, on at most `threads` threads. A step allocates no memory.
class Steps {
public:
    Steps(const Parameters& parameters, Index N, Index threads);
    virtual ~Steps();
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;
    virtual void step(const float* tokens, float* output) = 0;  // [N, I], [N, width of the output]
    virtual float* state(std::size_t k, Index n) = 0;           // [width], before the next step

protected:
    Call<float> call_;  // without end; token n of each step is row n
};

// A layer in one direction, its weights packed. Calls only read it. A token's result depends neither on
// other tokens of the call nor on the number of its steps.
class Snapshot {
public:
    explicit Snapshot(const Parameters& parameters);
    virtual ~Snapshot();
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;
    void run(Call<float> call);                        // the call's parameters are ignored
    virtual Steps* steps(Index N, Index threads) = 0;  // new; the snapshot must outlive it

protected:
    virtual void sweep(const Call<float>& call) = 0;
    const Parameters parameters_;
};

// y = W x + b for rows x, W packed once.
class Affine {
public:
    virtual ~Affine();
    virtual void apply(const float* rows, Index count, float* to) = 0;
};

// Functions of numbers, or of rows, in place.
enum class Activation { relu, tanh, sigmoid, softmax, log_softmax };

}  // namespace unrolled
