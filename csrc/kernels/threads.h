// Threads of a sweep: OpenMP's, which torch uses too; what each of them sets and checks.
#pragma once

#include <sched.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/buffer.h"
#include "support/threads.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// While it exists, subnormal numbers are flushed to zero and no operation traps.
class FlushSubnormals {
public:
#if defined(__x86_64__)
    FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x9fc0); }
    ~FlushSubnormals() { _mm_setcsr(before_); }

private:
    unsigned before_;
#elif defined(__aarch64__)
    FlushSubnormals() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" : : "r"((before_ & ~std::uint64_t(0x9f00)) | (1u << 24)));
    }
    ~FlushSubnormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

private:
    std::uint64_t before_;
#endif
};

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

inline bool is_cancelled(const CancelFlag* cancel) {
    return cancel && __atomic_load_n(&cancel->cancelled, __ATOMIC_RELAXED);
}

// Polls the cancel flag on one thread, each time that a certain amount of work is done.
class InterruptPoller {
public:
    // `work`: of a token, in multiplications.
    InterruptPoller(CancelFlag* cancel, double work) : cancel_(cancel), work_(work) {}

    bool cancelled_after(Index tokens) {
        if (!cancel_) return false;
        done_ += static_cast<double>(tokens) * work_;
        if (done_ > kWorkBetweenPolls) {
            done_ = 0;
            cancel_->poll(*cancel_);
        }
        return is_cancelled(cancel_);
    }

private:
    static constexpr double kWorkBetweenPolls = 2e8;  // about ten milliseconds

    CancelFlag* cancel_;
    double work_, done_ = 0;
};

// The other threads of a parallel region, as the calling thread sees them. One that is woken after a rest
// may be put on the core of the calling thread, and would wait for it there: OpenMP lets that one spin at the
// end of the region.
class OtherThreads {
public:
    // On each of them, before its work: moves it away from the core of the calling thread.
    void start() {
        if (sched_getcpu() == core_) leave_core(core_);
        __atomic_add_fetch(&started_, 1, __ATOMIC_RELAXED);
    }

    // On the calling thread, after its work: lends them its core until `count` have started.
    void wait_for_start(Index count) {
        for (int spins = 0; __atomic_load_n(&started_, __ATOMIC_RELAXED) < count; ++spins)
            if (spins < kSpins) pause();
            else sleep_briefly();
    }

private:
    static constexpr int kSpins = 500;

    int core_ = sched_getcpu();
    Index started_ = 0;
};

// Runs work(thread, count) on at most `threads` threads; `count` is how many there are.
template <class F>
void run_threads(Index threads, F work) {
#ifdef _OPENMP
    if (threads > 1 && !forked()) {
        OtherThreads others;
#pragma omp parallel num_threads(static_cast<int>(threads))
        {
            FlushSubnormals flush_subnormals;
            const auto thread = static_cast<Index>(omp_get_thread_num());
            const auto count = static_cast<Index>(omp_get_num_threads());
            if (thread > 0) others.start();
            work(thread, count);
            if (thread == 0) others.wait_for_start(count - 1);
        }
        return;
    }
#endif
    FlushSubnormals flush_subnormals;
    work(Index(0), Index(1));
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
