// One build of the kernels: compiled once per instruction set, with its flags.
#include "backward.h"
#include "forward.h"

namespace unrolled {
namespace UNROLLED_BUILD {
namespace {

template <class T>
void forward(const Call<T>& call) {
    Forward<T>(call, call.threads).run();
}

template <class T>
void backward(const Gradients<T>& gradients) {
    Backward<T>(gradients, gradients.call->threads).run();
}

// Two sweeps that need nothing of one another, as two directions are.
template <class Sweep>
void run_both(Sweep& first, Sweep& second, bool apart) {
    together(apart ? 2 : 1, [&](Index me, Index count) {
        for (Index k = me; k < 2; k += count) (k == 0 ? first : second).run();
    });
}

template <class T>
void forward_both(const Call<T>& a, const Call<T>& b) {
    const bool apart = Batch<T>(a, a.threads).apart(a.program->ahead);
    Forward<T> first(a, apart ? 1 : a.threads), second(b, apart ? 1 : b.threads);
    run_both(first, second, apart);
}

template <class T>
void backward_both(const Gradients<T>& a, const Gradients<T>& b) {
    const Call<T>& call = *a.call;
    const bool apart = Batch<T>(call, call.threads).apart(call.program->back);
    Backward<T> first(a, apart ? 1 : call.threads), second(b, apart ? 1 : call.threads);
    run_both(first, second, apart);
}

}  // namespace

extern const Build build;
const Build build = {UNROLLED_NAME,
                     lanes<float>,
                     forward<float>,
                     forward<double>,
                     backward<float>,
                     backward<double>,
                     forward_both<float>,
                     forward_both<double>,
                     backward_both<float>,
                     backward_both<double>};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
