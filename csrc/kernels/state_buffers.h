// The states of a forward sweep.
#pragma once

#include "kernels/interpreter.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// For each state the initial values and two buffers that steps alternate between.
template <class T>
class StateBuffers {
public:
    explicit StateBuffers(const Call<T>& call) : call_(call), p_(*call.program), buffers_(p_.states.size()) {
        for (std::size_t k = 0; k < buffers_.size(); ++k)
            buffers_[k] = zeros<T>(3 * call_.N * pitch(p_.states[k]));
        read_initial();
    }

    // Copies the initial states of the call.
    void read_initial() {
        for (std::size_t k = 0; k < buffers_.size(); ++k) {
            const Index w = p_.states[k], ld = pitch(w);
            T* const to = buffers_[k].data();
            if (!call_.initial[k]) clear(to, call_.N * ld);
            else
                for (Index n = 0; n < call_.N; ++n) copy(to + n * ld, call_.initial[k] + n * w, w);
        }
    }

    NodeRows<T> initial(std::size_t k) { return rows(k, 0); }
    NodeRows<T> after(std::size_t k, Index t) { return rows(k, 1 + t % 2); }

private:
    NodeRows<T> rows(std::size_t k, Index number) {
        const Index ld = pitch(p_.states[k]);
        return {buffers_[k].data() + number * call_.N * ld, ld, p_.states[k] == 1};
    }

    const Call<T>& call_;
    const Program& p_;
    std::vector<Buffer<T>> buffers_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
