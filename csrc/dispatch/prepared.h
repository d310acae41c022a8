// Forward sweeps of few tokens that are set up once and run many times.
#pragma once

#include <vector>

#include "dispatch/call.h"

namespace unrolled {

// The weights of a sweep with so few tokens are read where they are, not packed.
constexpr Index kMaxPreparedTokens = 8;

// A forward sweep in float on one thread, without gradient. It owns its buffers; each run reads everything
// else anew: weights, biases, vectors and initial states. One thread runs it at a time.
class PreparedSweep {
public:
    explicit PreparedSweep(const Call<float>& call);
    virtual ~PreparedSweep();
    PreparedSweep(const PreparedSweep&) = delete;
    PreparedSweep& operator=(const PreparedSweep&) = delete;

    // On arrays of the sizes of the call, listed as in a RawCall. They are not checked again.
    void run(const std::vector<Index>& arrays);

protected:
    virtual void sweep() = 0;
    Call<float> call_;
};

}  // namespace unrolled
