// One build of the kernels: they are compiled once per instruction set.
#pragma once

#include "dispatch/call.h"
#include "dispatch/prepared.h"
#include "dispatch/snapshot.h"

namespace unrolled {

// The functions of a build. The runs of one call write to nothing in common, do not depend on one another
// and have equal numbers of threads.
struct Build {
    const char* name;
    int lanes;           // floats in a vector
    bool bf16_products;  // whether it computes those of Call::bf16_products; otherwise it ignores them
    void (*forward_float)(const Call<float>* const* runs, Index count);
    void (*forward_double)(const Call<double>* const* runs, Index count);
    void (*backward_float)(const Gradients<float>* const* runs, Index count);
    void (*backward_double)(const Gradients<double>* const* runs, Index count);
    void (*widen)(const Half* from, float* to, Index count, NumberFormat format);
    void (*narrow)(const float* from, Half* to, Index count, NumberFormat format);
    Snapshot* (*snapshot)(const Parameters& parameters, WeightFormat format);
    Affine* (*affine)(const Weights<float>& weights, Index width, Index source, WeightFormat format);
    PreparedSweep* (*prepare)(const Call<float>& call);              // new
    Digest (*digest)(const void* data, Index bytes, Index threads);  // in shares of so many threads
    void (*activate)(Activation kind, float* rows, Index count, Index width);
};

}  // namespace unrolled
