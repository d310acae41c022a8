#include "dispatch/builds.h"

#include <stdexcept>

namespace unrolled {

#define UNROLLED_DECLARE(name) \
    namespace name {           \
    extern const Build build;  \
    }
#ifdef UNROLLED_WITH_avx512bf16
UNROLLED_DECLARE(avx512bf16)
#endif
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

bool offers_avx512bf16() {
#if defined(__x86_64__)
    return offers_avx512() && __builtin_cpu_supports("avx512bf16");
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

// Initialized when the library is loaded and never destroyed: a forked child would wait for a thread of its
// parent that initializes it, and threads of a process that ends may still read it.
static const InstructionSet sets[] = {
    {"avx512bf16", offers_avx512bf16()},
    {"avx512", offers_avx512()},
    {"avx2", offers_avx2()},
    {"neon", offers_neon()},
    {"plain", true},
};

const InstructionSet* instruction_sets(int* count) {
    *count = static_cast<int>(sizeof(sets) / sizeof(sets[0]));
    return sets;
}

namespace {

std::vector<const Build*> find_builds() {
    std::vector<const Build*> list;
#ifdef UNROLLED_WITH_avx512bf16
    if (offers_avx512bf16()) list.push_back(&avx512bf16::build);
#endif
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
}

const std::vector<const Build*>& builds = *new std::vector<const Build*>(find_builds());

}  // namespace

const std::vector<const Build*>& available_builds() { return builds; }

const Build& find_build(const std::string& name) {
    if (name.empty()) return *available_builds().front();
    for (const Build* build : available_builds())
        if (name == build->name) return *build;
    throw std::invalid_argument("build must be one that can run here, got " + name);
}

}  // namespace unrolled
