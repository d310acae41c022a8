#include "dispatch.h"

#include <pthread.h>

#include <atomic>
#include <stdexcept>

namespace unrolled {

#if defined(__x86_64__)
namespace avx512 {
extern const Build build;
}
namespace avx2 {
extern const Build build;
}
#endif
namespace plain {
extern const Build build;
}
namespace plain8 {
extern const Build build;
}
namespace plain16 {
extern const Build build;
}

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

bool forked() { return registered == 0 && is_child; }

const std::vector<const Build*>& available_builds() {
    static const std::vector<const Build*> found = [] {
        std::vector<const Build*> list;
#if defined(__x86_64__)
        if (offers_avx512()) list.push_back(&avx512::build);
        if (offers_avx2()) list.push_back(&avx2::build);
#endif
        for (const Build* build : {&plain::build, &plain8::build, &plain16::build})
            list.push_back(build);
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
