// Chunks of steps whose inputs are projected by the thread that sweeps the sequences, or ahead of it by a
// thread that has finished its own: processors differ in speed, and sequences in length.
#pragma once

#include "kernels/threads.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Where a part of a sweep stands.
template <class T>
struct alignas(64) Position {
    InterruptPoller poller;
    Index t = 0, projected = 0;  // the step, and the first one whose inputs are not projected yet
    Index rows = 0;              // of the step
    std::size_t phase = 0;
    T* x = nullptr;  // inputs of the step
    bool begun = false, stepping = false, met = false;
};

// The most numbers that other threads may project ahead for a part.
constexpr Index kMaxProjectedAhead = Index(1) << 20;

// Each chunk is claimed once: by the thread of its sequences, from the first chunk on, which uses the
// result itself; or by another thread, from the last chunk back, which leaves the result in a buffer
// here.
template <class T>
class ProjectedChunks {
public:
    ProjectedChunks(Index count, Index numbers) : claims_(zeros<int>(count)), numbers_(numbers) {
        const Index room = max<Index>(2, kMaxProjectedAhead / max<Index>(1, numbers));
        first_ = count - min(count / 2, room);
        buffers_ = Buffer<T>((count - first_) * numbers);
    }

    Index count() const { return claims_.count(); }
    Index first() const { return first_; }  // of the chunks that other threads may project

    bool claim(Index c) {
        int none = 0;
        return __atomic_compare_exchange_n(&claims_[c], &none, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }

    T* buffer(Index c) { return buffers_.data() + (c - first_) * numbers_; }
    void publish(Index c) { __atomic_store_n(&claims_[c], 2, __ATOMIC_RELEASE); }

    // Waits for the buffer that another thread fills; null if the sweep is cancelled meanwhile.
    T* wait(Index c, const CancelFlag* cancel) {
        for (int spins = 0; __atomic_load_n(&claims_[c], __ATOMIC_ACQUIRE) != 2; ++spins) {
            if (spins < 2000) pause();
            else if (is_cancelled(cancel)) return nullptr;
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
