#include "dispatch.h"

#include <pthread.h>

#include <atomic>
#include <new>
#include <stdexcept>

namespace unrolled {

#define UNROLLED_DECLARE(name)    \
    namespace name {              \
    extern const Build build;     \
    }
#ifdef UNROLLED_WITH_avx512
UNROLLED_DECLARE(avx512)
#endif
#ifdef UNROLLED_WITH_avx2
UNROLLED_DECLARE(avx2)
#endif
#ifdef UNROLLED_WITH_neon
UNROLLED_DECLARE(neon)
#endif
#ifdef UNROLLED_WITH_plain
UNROLLED_DECLARE(plain)
#endif
#ifdef UNROLLED_WITH_plain8
UNROLLED_DECLARE(plain8)
#endif
#ifdef UNROLLED_WITH_plain16
UNROLLED_DECLARE(plain16)
#endif

namespace {

// The compiler's feature test reads CPUID and, through XGETBV, whether the system saves the wide registers.
bool offers_avx512() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}

bool offers_avx2() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

constexpr bool offers_neon() {
#if defined(__aarch64__)
    return true;  // part of the base architecture
#else
    return false;
#endif
}

}  // namespace

const InstructionSet* instruction_sets(int* count) {
    static const InstructionSet sets[] = {
        {"avx512", offers_avx512()},
        {"avx2", offers_avx2()},
        {"neon", offers_neon()},
        {"plain", true},
    };
    *count = static_cast<int>(sizeof(sets) / sizeof(sets[0]));
    return sets;
}

namespace {

std::atomic<bool> is_child{false};
const int registered = pthread_atfork(nullptr, nullptr, [] { is_child = true; });

}  // namespace

void out_of_memory() { throw std::bad_alloc(); }

bool forked() { return registered == 0 && is_child; }

const std::vector<const Build*>& available_builds() {
    static const std::vector<const Build*> found = [] {
        std::vector<const Build*> list;
#ifdef UNROLLED_WITH_avx512
        if (offers_avx512()) list.push_back(&avx512::build);
#endif
#ifdef UNROLLED_WITH_avx2
        if (offers_avx2()) list.push_back(&avx2::build);
#endif
#ifdef UNROLLED_WITH_neon
        list.push_back(&neon::build);
#endif
#ifdef UNROLLED_WITH_plain
        list.push_back(&plain::build);
#endif
#ifdef UNROLLED_WITH_plain8
        list.push_back(&plain8::build);
#endif
#ifdef UNROLLED_WITH_plain16
        list.push_back(&plain16::build);
#endif
        return list;
    }();
    return found;
}

const Build& find_build(const std::string& name) {
    if (name.empty()) return *available_builds().front();
    for (const Build* build : available_builds())
        if (name == build->name) return *build;
    throw std::invalid_argument("no build of the kernels called " + name + " can run here");
}

}  // namespace unrolled
