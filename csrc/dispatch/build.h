// One build of the kernels: they are compiled once per instruction set.
#pragma once

#include "dispatch/call.h"
#include "dispatch/snapshot.h"

namespace unrolled {

// One entry of the table of builds. It takes runs that write to nothing in common, and need nothing
// of one another, with equal numbers of threads.
struct Build {
    const char* name;
    int lanes;  // floats in a vector
    void (*forward_float)(const Call<float>* const* runs, Index count);
    void (*forward_double)(const Call<double>* const* runs, Index count);
    void (*backward_float)(const Gradients<float>* const* runs, Index count);
    void (*backward_double)(const Gradients<double>* const* runs, Index count);
    void (*widen)(const Half* from, float* to, Index count, Storage storage);
    void (*narrow)(const float* from, Half* to, Index count, Storage storage);
    Snapshot* (*snapshot)(const Parameters& parameters, Kept kept);
    Affine* (*affine)(const Weights<float>& weights, Index width, Index source, Kept kept);
    void (*activate)(Activation kind, float* rows, Index count, Index width);
};

}  // namespace unrolled
