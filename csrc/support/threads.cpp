#include "support/threads.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace unrolled {
namespace {

constexpr Index kMaxWait = 300'000;  // longer than it takes to wake a thread, shorter than a time slice
constexpr Index kMinDistrust = 4'000'000, kMaxDistrust = 1'024'000'000;  // a time slice; a second
constexpr Index kGrowth = 4;
constexpr Index kMaxProof = 50'000'000;  // threads on busy cores are never in time for so long

struct Trust {
    std::atomic<Index> max_wait{kMaxWait}, min_distrust{kMinDistrust};
    std::atomic<Index> until{0};  // 0: no thread was ever late
    std::atomic<Index> threads{1}, distrust{kMinDistrust};
    std::atomic<Index> reported{0}, in_time{0};
    std::mutex reporting;
};

// Never destroyed: threads may still sweep while the process ends.
Trust& trust = *new Trust;

struct Sleepers {
    std::mutex mutex;
    std::condition_variable wake;
};

Sleepers& sleepers = *new Sleepers;

std::atomic<int> fork_count{0};
const int registered = pthread_atfork(nullptr, nullptr, [] { ++fork_count; });

}  // namespace

bool forked() { return forks() > 0; }

int forks() { return registered == 0 ? fork_count.load() : 0; }

Index now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Several threads report the same late one: reports within the shortest time count once.
void report_late_thread(Index threads) {
    const std::unique_lock<std::mutex> lock(trust.reporting, std::try_to_lock);
    if (!lock) return;  // another thread reports, or did so while this process was forked
    const Index time = now(), until = trust.until, shortest = trust.min_distrust;
    if (until > 0 && time - trust.reported < shortest) return;
    const bool again = until > 0 && trust.in_time < std::min<Index>(trust.distrust, kMaxProof);
    trust.distrust = again ? std::min<Index>(kGrowth * trust.distrust, kMaxDistrust) : shortest;
    trust.in_time = 0;
    trust.threads = std::max<Index>(1, threads / 2);
    trust.reported = time;
    trust.until = time + trust.distrust;
}

void report_threads_in_time(Index nanoseconds) {
    if (trust.until.load(std::memory_order_relaxed) != 0) trust.in_time += nanoseconds;
}

Index trusted_threads() {
    const Index until = trust.until.load(std::memory_order_relaxed);
    return until == 0 || now() >= until ? kMaxThreads : trust.threads.load();
}

Index distrusted_for(Index threads) {
    const Index until = trust.until;
    return until == 0 || threads <= trust.threads ? 0 : std::max<Index>(0, until - now());
}

Index max_wait() { return trust.max_wait.load(std::memory_order_relaxed); }

void set_max_wait(Index wait, Index distrust) {
    const std::lock_guard<std::mutex> lock(trust.reporting);
    trust.max_wait = wait < 0 ? kMaxWait : wait;
    trust.min_distrust = distrust < 0 ? kMinDistrust : distrust;
    trust.until = 0;
}

void sleep_until(const int& ended, Index nanoseconds) {
    std::unique_lock<std::mutex> lock(sleepers.mutex);
    sleepers.wake.wait_for(lock, std::chrono::nanoseconds(nanoseconds), [&] { return ended != 0; });
}

void wake_sleepers(int& ended) {
    {
        const std::lock_guard<std::mutex> lock(sleepers.mutex);
        ended = 1;
    }
    sleepers.wake.notify_all();
}

void sleep_briefly() {
    const timespec time{0, 20'000};
    nanosleep(&time, nullptr);
}

void leave_core(int core) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
}

ForkSafeLock::ForkSafeLock(int& process) : process_(process) {
    const int here = 1 + forks();
    int before = 0;
    while (!__atomic_compare_exchange_n(&process_, &before, here, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        if (before == here) {
            sched_yield();
            before = 0;
        }
    interrupted_ = before != 0;
}

ForkSafeLock::~ForkSafeLock() { __atomic_store_n(&process_, 0, __ATOMIC_RELEASE); }

#if defined(__x86_64__)
MaskedFloatTraps::MaskedFloatTraps() : previous_(_mm_getcsr()) {
    _mm_setcsr(static_cast<unsigned>(previous_) | 0x1f80);
}
MaskedFloatTraps::~MaskedFloatTraps() { _mm_setcsr(static_cast<unsigned>(previous_)); }
#elif defined(__aarch64__)
MaskedFloatTraps::MaskedFloatTraps() {
    asm volatile("mrs %0, fpcr" : "=r"(previous_));
    asm volatile("msr fpcr, %0" : : "r"(previous_ & ~std::uint64_t(0x9f00)));
}
MaskedFloatTraps::~MaskedFloatTraps() { asm volatile("msr fpcr, %0" : : "r"(previous_)); }
#else
MaskedFloatTraps::MaskedFloatTraps() = default;
MaskedFloatTraps::~MaskedFloatTraps() = default;
#endif

}  // namespace unrolled
