// Threads that work on one sweep: OpenMP's, which torch uses too, and a barrier that spins.
#pragma once

#include <sched.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "support/threads.h"
#include "kernels/buffer.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Subnormal numbers are flushed to zero inside of a sweep, and no operation traps; the caller's mode
// comes back after it.
class Flush {
public:
#if defined(__x86_64__)
    Flush() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x9fc0); }
    ~Flush() { _mm_setcsr(before_); }

private:
    unsigned before_;
#elif defined(__aarch64__)
    Flush() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" : : "r"((before_ & ~std::uint64_t(0x9f00)) | (1u << 24)));
    }
    ~Flush() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

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

inline bool is_over(const Stop* stop) {
    return stop && __atomic_load_n(&stop->over, __ATOMIC_RELAXED);
}

// One thread's question whether to go on, put each time that so much work is done.
class Watch {
public:
    // `work`: of a token, in multiplications.
    Watch(Stop* stop, double work) : stop_(stop), work_(work) {}

    bool over(Index tokens) {
        if (!stop_) return false;
        done_ += static_cast<double>(tokens) * work_;
        if (done_ > kPatience) {
            done_ = 0;
            stop_->ask(*stop_);
        }
        return is_over(stop_);
    }

private:
    static constexpr double kPatience = 2e8;  // some ten milliseconds

    Stop* stop_;
    double work_, done_ = 0;
};

// Threads meet here: each says how often it has been, and waits until all have been as often, or
// until the sweep is over. One that waits long gives its core away.
class Barrier {
public:
    Barrier(Index threads, const Stop* stop)
        : rounds_(zeros<int>(threads * kApart)), stop_(stop) {}

    // Forgets how often each has been: before a region, whose threads may be others than the last one's.
    void restart() {
        for (Index k = 0; k < rounds_.count(); k += kApart) rounds_[k] = 0;
    }

    void wait(Index me, Index count) {
        if (count == 1) return;
        const int round = rounds_[me * kApart] + 1;
        __atomic_store_n(&rounds_[me * kApart], round, __ATOMIC_RELEASE);
        for (Index other = 0; other < count; ++other)
            for (int spins = 0; !reached(other, round); ++spins) {
                if (spins < 2000) pause();
                else if (is_over(stop_)) return;
                else sched_yield();
            }
    }

private:
    static constexpr Index kApart = 32;  // two cache lines: neighbours are fetched in pairs

    bool reached(Index other, int round) const {
        return __atomic_load_n(&rounds_[other * kApart], __ATOMIC_ACQUIRE) - round >= 0;
    }

    Buffer<int> rounds_;
    const Stop* stop_;
};

// Runs work(me, count) on at most so many threads; `count` is how many there are.
template <class F>
void together(Index threads, F work) {
#ifdef _OPENMP
    if (threads > 1 && !forked()) {
#pragma omp parallel num_threads(static_cast<int>(threads))
        {
            Flush flush;
            work(static_cast<Index>(omp_get_thread_num()), static_cast<Index>(omp_get_num_threads()));
        }
        return;
    }
#endif
    Flush flush;
    work(Index(0), Index(1));
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
