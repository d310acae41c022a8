// The chunks of steps of some sequences, whose inputs are projected by the thread that sweeps them or
// ahead of it by one that has finished its own: processors are never equally fast, and sequences
// never equally long.
#pragma once

#include "kernels/threads.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Numbers of a part's chunks that others may fill.
constexpr Index kAhead = Index(1) << 20;

// Each chunk is claimed once: by its own thread, which goes from the first on and keeps the result to
// itself, or by another, which goes from the last back and leaves it in a buffer here.
template <class T>
class Chunks {
public:
    Chunks(Index count, Index numbers) : claims_(zeros<int>(count)), numbers_(numbers) {
        const Index room = most<Index>(2, kAhead / most<Index>(1, numbers));
        first_ = count - least(count / 2, room);
        buffers_ = Buffer<T>((count - first_) * numbers);
    }

    Index count() const { return claims_.count(); }
    Index first() const { return first_; }  // that others may fill

    bool claim(Index c) {
        int none = 0;
        return __atomic_compare_exchange_n(&claims_[c], &none, 1, false, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE);
    }

    T* buffer(Index c) { return buffers_.data() + (c - first_) * numbers_; }
    void publish(Index c) { __atomic_store_n(&claims_[c], 2, __ATOMIC_RELEASE); }

    // What another thread fills, when it is there; null if the sweep is over before.
    T* wait(Index c, const Stop* stop) {
        for (int spins = 0; __atomic_load_n(&claims_[c], __ATOMIC_ACQUIRE) != 2; ++spins) {
            if (spins < 2000) pause();
            else if (is_over(stop)) return nullptr;
            else sched_yield();
        }
        return buffer(c);
    }

private:
    Buffer<int> claims_;
    Buffer<T> buffers_;
    Index numbers_, first_ = 0;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
