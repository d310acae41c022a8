#include "dispatch.h"

namespace unrolled {
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

}  // namespace unrolled
