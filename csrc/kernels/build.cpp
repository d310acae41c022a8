// One build of the kernels, compiled once per instruction set.
#include "dispatch/build.h"
#include "kernels/backward.h"
#include "kernels/float16.h"
#include "kernels/kept_matrices.h"
#include "kernels/prepared.h"
#include "kernels/snapshot.h"

namespace unrolled {
namespace UNROLLED_BUILD {
namespace {

template <class T>
const Call<T>& call_of(const Call<T>& run) {
    return run;
}
template <class T>
const Call<T>& call_of(const Gradients<T>& run) {
    return *run.call;
}

// Runs on one thread each, as threads become free.
template <class Sweep, class Run>
void run_one_thread_each(const Run* const* runs, Index count, Index threads) {
    Index next = 0;
    int failed = 0;
    run_threads(min(threads, count), [&](Index, Index) {
        try {
            for (;;) {
                const Index k = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
                if (k >= count || is_cancelled(call_of(*runs[k]).cancel)) return;
                Sweep(*runs[k], 1).run();
            }
        } catch (...) {  // out of memory: no exception may leave a parallel region
            __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
        }
    });
    if (failed) out_of_memory();
}

template <class Sweep, class Run>
void run_all(const Run* const* runs, Index count, const Schedule& schedule) {
    const auto& call = call_of(*runs[0]);
    if (Batch(call, call.threads).one_thread_each(schedule, count))
        return run_one_thread_each<Sweep>(runs, count, call.threads);
    for (Index k = 0; k < count && !is_cancelled(call.cancel); ++k) Sweep(*runs[k], call.threads).run();
}

template <class T>
void forward(const Call<T>* const* runs, Index count) {
    run_all<KeepingForward<T>>(runs, count, runs[0]->program->forward_schedule);
}

template <class T>
void backward(const Gradients<T>* const* runs, Index count) {
    run_all<Backward<T>>(runs, count, runs[0]->call->program->backward_schedule);
}

void widen(const Half* from, float* to, Index count, NumberFormat format) {
    if (format == NumberFormat::bfloat16)
        for (Index k = 0; k < count; ++k) to[k] = widened(from[k]);
    else
        for (Index k = 0; k < count; ++k) to[k] = from_float16(from[k]);
}

void narrow(const float* from, Half* to, Index count, NumberFormat format) {
    if (format == NumberFormat::bfloat16)
        for (Index k = 0; k < count; ++k) to[k] = rounded_to_bf16(from[k]);
    else
        for (Index k = 0; k < count; ++k) to[k] = to_float16(from[k]);
}

Digest digest(const void* data, Index bytes, Index threads) {
    Digest sum;
    for (Index thread = 0; thread < threads; ++thread) add(sum, digest_share(data, bytes, thread, threads));
    return sum;
}

}  // namespace

extern const Build build;
const Build build = {UNROLLED_NAME,    lanes<float>,    kMultipliesBf16<float>,
                     forward<float>,   forward<double>, backward<float>,
                     backward<double>, widen,           narrow,
                     make_snapshot,    make_affine,     prepare,
                     digest,           activate};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
