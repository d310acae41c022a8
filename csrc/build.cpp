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
void both(const Call<T>& a, const Call<T>& b) {
    sweep_both(a, b);
}

template <class T>
void backward(const Gradients<T>& gradients) {
    Backward<T>(gradients).run();
}

}  // namespace

extern const Build build;
const Build build = {UNROLLED_NAME, lanes<float>, forward<float>, forward<double>,
                     backward<float>, backward<double>, both<float>, both<double>};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
