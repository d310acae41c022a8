// A short forward sweep that is set up once and run many times.
#pragma once

#include "dispatch/prepared.h"
#include "kernels/forward.h"

namespace unrolled {
namespace UNROLLED_BUILD {

static_assert(kMaxPreparedTokens <= kFewRows, "packed weights would be those of the first run");

class PreparedForward final : public PreparedSweep {
public:
    explicit PreparedForward(const Call<float>& call) : PreparedSweep(call), forward_(call_, 1) {}

private:
    void sweep() override {
        forward_.read_call();
        forward_.run();
    }

    Forward<float> forward_;
};

inline PreparedSweep* prepare(const Call<float>& call) {
    const LongLivedMemory lasting;
    return new PreparedForward(call);
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
