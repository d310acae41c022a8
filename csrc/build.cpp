// One build of the kernels: compiled once per instruction set, with its flags.
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "dispatch.h"
#include "sweep.h"

namespace unrolled {
namespace UNROLLED_BUILD {
namespace {

// Subnormal numbers are flushed to zero inside of a sweep; the caller's mode comes back after it.
class Flush {
public:
#if defined(__x86_64__)
    Flush() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~Flush() { _mm_setcsr(before_); }

private:
    unsigned before_;
#endif
};

// Calls work(first, last) on even shares of [0, count), in multiples of `grain`.
template <class F>
void share(int threads, Index count, Index grain, F work) {
    const Index parts = std::max<Index>(1, std::min<Index>(threads, count / grain));
#ifdef _OPENMP
    if (parts > 1 && !forked()) {
#pragma omp parallel num_threads(static_cast<int>(parts))
        {
            Flush flush;
            const Index team = omp_get_num_threads(), me = omp_get_thread_num();
            const Index units = (count + grain - 1) / grain;
            const Index a = std::min(count, units * me / team * grain);
            const Index b = std::min(count, units * (me + 1) / team * grain);
            if (b > a) work(a, b);
        }
        return;
    }
#endif
    Flush flush;
    work(0, count);
}

// Steps are long enough to wake a second thread for.
template <class T>
int threads_for(const Call<T>& call) {
    const Program& p = *call.program;
    double work = static_cast<double>(p.x_parts) * p.x_width * call.I;
    for (const Product& product : p.products)
        work += static_cast<double>(product.parts) * product.width * product.source;
    return work * static_cast<double>(call.total) < 2e6 ? 1 : call.threads;
}

template <class T>
void forward(const Call<T>& call) {
    const Schedule schedule = schedule_forward(*call.program);
    Shared<T> shared(call);
    shared.pack_forward();
    share(threads_for(call), call.N, kRows,
          [&](Index a, Index b) { forward_rows(shared, schedule, a, b); });
}

template <class T>
void sum_rows(const T* rows, Index count, Index width, T* to) {
    std::fill(to, to + width, T(0));
    for (Index r = 0; r < count; ++r)
        for (Index u = 0; u < width; ++u) to[u] += rows[r * width + u];
}

template <class T>
void weights(int threads, const T* D, Index M, const std::vector<const T*>& S, Index K, T* weight,
             T* bias) {
    const Index total = static_cast<Index>(S.size());
    if (weight)
        share(threads, M, kRows, [&](Index a, Index b) {
            weight_gradient(D, M, S.data(), K, total, weight, a, b);
        });
    if (bias) sum_rows(D, total, M, bias);
}

// What each product multiplied, token by token.
template <class T>
std::vector<const T*> sources(const Gradients<T>& g, const Shared<T>& shared, std::size_t key) {
    const Call<T>& call = *g.call;
    const Program& p = *call.program;
    const Index w = p.products[key].source;
    const Node& node = p.nodes[p.sources[key]];
    std::vector<const T*> rows;
    for (Index t = 0; t < call.T_steps; ++t)
        for (Index r = 0; r < call.sizes[t]; ++r) {
            if (node.leaf != Leaf::state) rows.push_back(g.source[key] + (shared.offset[t] + r) * w);
            else if (t == 0) rows.push_back(call.initial[node.key] + r * w);
            else rows.push_back(call.history[node.key] + (shared.offset[t - 1] + r) * w);
        }
    return rows;
}

template <class T>
void backward(const Gradients<T>& g) {
    const Call<T>& call = *g.call;
    const Program& p = *call.program;
    const Schedule schedule = schedule_backward(p);
    const int threads = threads_for(call);
    Shared<T> shared(call);
    shared.pack_backward();
    std::vector<Buffer<T>> own;
    for (Index w : p.vectors) {
        own.emplace_back(call.N * w);
        std::fill(own.back().data(), own.back().data() + call.N * w, T(0));
    }
    share(threads, call.N, kRows,
          [&](Index a, Index b) { backward_rows(g, shared, schedule, a, b, own); });
    for (std::size_t k = 0; k < p.vectors.size(); ++k)
        sum_rows(own[k].data(), call.N, p.vectors[k], g.grad_vectors[k]);
    std::vector<const T*> tokens;
    for (Index n = 0; n < call.total; ++n) tokens.push_back(call.tokens + n * call.I);
    const Index M = p.x_parts * p.x_width;
    weights(threads, g.grad_x, M, tokens, call.I, g.grad_input_weight, g.grad_input_bias);
    for (std::size_t k = 0; k < p.products.size(); ++k) {
        const Index rows = p.products[k].parts * p.products[k].width;
        weights(threads, g.grad_products[k], rows, sources(g, shared, k), p.products[k].source,
                g.grad_weights[k], g.grad_biases[k]);
    }
    if (!g.grad_tokens) return;
    const Packed<T> back = pack_transposed(call.input.weight, M, call.I);
    share(threads, call.total, kRows, [&](Index a, Index b) {
        constexpr Index block = 8 * kRows;
        Buffer<T> out(block * back.padded());
        std::vector<const T*> rows;
        for (Index from = a; from < b; from += block) {
            const Index count = std::min(block, b - from);
            rows.clear();
            for (Index r = 0; r < count; ++r) rows.push_back(g.grad_x + (from + r) * M);
            multiply<T>(rows.data(), count, back, nullptr, out.data(), back.padded());
            for (Index r = 0; r < count; ++r)
                copy(g.grad_tokens + (from + r) * call.I, out.data() + r * back.padded(),
                            call.I);
        }
    });
}

}  // namespace

extern const Build build;
const Build build = {UNROLLED_NAME, lanes<float>, forward<float>, forward<double>,
                     backward<float>, backward<double>};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
