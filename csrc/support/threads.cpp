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
Masked::Masked() : before_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(before_) | 0x1f80); }
Masked::~Masked() { _mm_setcsr(static_cast<unsigned>(before_)); }
#elif defined(__aarch64__)
Masked::Masked() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ & ~std::uint64_t(0x9f00)));
}
Masked::~Masked() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
Masked::Masked() = default;
Masked::~Masked() = default;
#endif

}  // namespace unrolled
