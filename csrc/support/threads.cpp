#include "support/threads.h"

#include <pthread.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <atomic>

namespace unrolled {
namespace {

std::atomic<int> fork_count{0};
const int registered = pthread_atfork(nullptr, nullptr, [] { ++fork_count; });

}  // namespace

bool forked() { return forks() > 0; }

int forks() { return registered == 0 ? fork_count.load() : 0; }

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
