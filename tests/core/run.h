// Runs a problem on one build of the kernels, forward and backward, and checks its arrays.
#pragma once

#include <cstring>
#include <memory>

#include "checks.h"
#include "dispatch/build.h"
#include "guarded.h"
#include "problem.h"

namespace core_test {

// Whether results are equal to the bit.
inline bool same(const Results& a, const Results& b) {
    if (a.size() != b.size()) return false;
    for (std::size_t k = 0; k < a.size(); ++k)
        if (a[k].values.size() != b[k].values.size() ||
            (!a[k].values.empty() &&
             std::memcmp(a[k].values.data(), b[k].values.data(), a[k].values.size() * sizeof(double))))
            return false;
    return true;
}

template <class T>
class Run {
public:
    // With groups, sums over sequences have a first dimension of that size.
    Run(const Problem& p, int threads, Index groups = 1) : p_(p), groups_(groups) {
        call_.program = &p.program;
        call_.T_steps = p.T;
        call_.N = p.N;
        call_.I = p.I;
        call_.total = p.total;
        call_.threads = threads;
        if (p.ragged) call_.sizes = indices(p.sizes);
        call_.token_rows = {p.tabled ? indices(p.row) : nullptr, p.base, p.step, p.next};
        call_.tokens = {input(p.tokens), nullptr};
        for (const Weights& w : p.weights) {
            const unrolled::Weights<T> result{{input(w.weight), nullptr}, input(w.bias)};
            if (&w == &p.weights.front()) call_.input = result;
            else call_.products.push_back(result);
        }
        for (const Array& vector : p.vectors) call_.vectors.push_back(input(vector));
        for (const Array& state : p.initial) call_.initial.push_back(input(state));
        call_.output = {output("output", p.rows * p.program.states[0], true), nullptr};
        for (std::size_t k = 0; k < p.program.states.size(); ++k)
            call_.final.push_back(output("final state", p.N * p.program.states[k], true));
    }

    void forward(const unrolled::Build& build) {
        const unrolled::Call<T>* const one = &call_;
        if constexpr (sizeof(T) == sizeof(float)) build.forward_float(&one, 1);
        else build.forward_double(&one, 1);
    }

    // Forward as in training, then backward, which gets no final states and must not change what forward
    // wrote.
    void train(const unrolled::Build& build) {
        begin();
        forward(build);
        turn();
        const unrolled::Gradients<T>* const one = &gradients_;
        if constexpr (sizeof(T) == sizeof(float)) build.backward_float(&one, 1);
        else build.backward_double(&one, 1);
    }

    // Forward with packed weights.
    void snapshot(const unrolled::Build& build, unrolled::WeightFormat format) {
        const std::unique_ptr<unrolled::Snapshot> result(build.snapshot(parameters(), format));
        result->run(call_);
    }

    // Step by step, for tokens in the order of steps: the output, then the states. Sequences start from the
    // initial states of the problem.
    Results steps(const unrolled::Build& build, unrolled::WeightFormat format, Index threads) {
        const std::unique_ptr<unrolled::Snapshot> result(build.snapshot(parameters(), format));
        const std::unique_ptr<unrolled::Steps> walk(result->steps(p_.N, threads));
        const std::vector<Index>& widths = p_.program.states;
        std::vector<float> output(size(p_.T * p_.N * widths[0]));
        for (std::size_t k = 0; k < widths.size(); ++k)
            for (Index n = 0; n < p_.N && call_.initial[k]; ++n)
                for (Index u = 0; u < widths[k]; ++u)
                    walk->state(k, n)[u] = call_.initial[k][n * widths[k] + u];
        for (Index t = 0; t < p_.T; ++t)
            walk->step(call_.tokens.native + t * p_.N * p_.I, output.data() + t * p_.N * widths[0]);
        Results found{{"output", Vector(output.begin(), output.end())}};
        for (std::size_t k = 0; k < widths.size(); ++k) {
            Vector state;
            for (Index n = 0; n < p_.N; ++n)
                state.insert(state.end(), walk->state(k, n), walk->state(k, n) + widths[k]);
            found.push_back({"final state", state});
        }
        return found;
    }

    // Several in one call.
    static void train(const unrolled::Build& build, const std::vector<Run*>& runs) {
        const Index count = static_cast<Index>(runs.size());
        std::vector<const unrolled::Call<T>*> calls;
        std::vector<const unrolled::Gradients<T>*> gradients;
        for (Run* run : runs) {
            run->begin();
            calls.push_back(&run->call_);
            gradients.push_back(&run->gradients_);
        }
        if constexpr (sizeof(T) == sizeof(float)) build.forward_float(calls.data(), count);
        else build.forward_double(calls.data(), count);
        for (Run* run : runs) run->turn();
        if constexpr (sizeof(T) == sizeof(float)) build.backward_float(gradients.data(), count);
        else build.backward_double(gradients.data(), count);
    }

    Results results() {
        Results result;
        for (const Out& out : outs_) result.push_back({out.name, out.array ? out.array->values() : Vector{}});
        return result;
    }

    // A description of what is wrong with the arrays, or "".
    std::string fault() const {
        for (const auto& array : arrays_) {
            if (!array->intact()) return "an array was left";
            if (!array->unchanged()) return "an input was written";
        }
        for (const auto& array : indices_)
            if (!array->intact() || !array->unchanged()) return "sizes or rows were written";
        return saved_written_ ? "" : "numbers for backward are missing";
    }

private:
    struct Out {
        std::string name;
        Guarded<T>* array;
    };

    unrolled::Parameters parameters() const {
        return {call_.program, call_.I, call_.input, call_.products, call_.vectors};
    }

    void begin() {
        arrays_.push_back(std::make_unique<Guarded<T>>(size(p_.total * p_.program.saved_pitch)));
        saved_ = arrays_.back().get();
        call_.saved = saved_->data();
    }

    // Between forward and backward.
    void turn() {
        if (p_.program.saved_whole) saved_written_ = !has_poison(*saved_);
        for (auto& array : arrays_) array->keep();
        for (T*& state : call_.final) state = nullptr;
        aim();
    }

    static std::size_t size(Index count) { return static_cast<std::size_t>(count); }

    static bool has_poison(Guarded<T>& array) {
        for (std::size_t k = 0; k < array.count(); ++k)
            if (all_poison(array.data() + k, sizeof(T))) return true;
        return false;
    }

    // As in torch an empty array has no address.
    const T* input(const Array& array) {
        if (!array.given || array.values.empty()) return nullptr;
        arrays_.push_back(std::make_unique<Guarded<T>>(array.values));
        return arrays_.back()->data();
    }

    T* output(const char* name, Index count, bool expected) {
        outs_.push_back({name, nullptr});
        if (!expected || count == 0) return nullptr;
        arrays_.push_back(std::make_unique<Guarded<T>>(size(count)));
        outs_.back().array = arrays_.back().get();
        return arrays_.back()->data();
    }

    const Index* indices(const std::vector<Index>& values) {
        indices_.push_back(std::make_unique<Guarded<Index>>(values.size()));
        for (std::size_t k = 0; k < values.size(); ++k) indices_.back()->data()[k] = values[k];
        indices_.back()->keep();
        return indices_.back()->data();
    }

    // In the order of the naive reference.
    void aim() {
        const unrolled::Program& g = p_.program;
        const std::vector<Shape> all = shapes(g, p_.I);
        gradients_.call = &call_;
        gradients_.groups = groups_;
        gradients_.grad_output = {input(p_.grad_output), nullptr};
        for (const Array& state : p_.grad_final) gradients_.grad_final.push_back(input(state));
        gradients_.grad_tokens = {output("gradient of tokens", p_.rows * p_.I, p_.wants_tokens), nullptr};
        for (std::size_t k = 0; k < g.states.size(); ++k)
            gradients_.grad_initial.push_back(
                output("gradient of initial state", p_.N * g.states[k], p_.wants_initial[k]));
        for (std::size_t k = 0; k < g.vectors.size(); ++k)
            gradients_.grad_vectors.push_back(
                output("gradient of vector", groups_ * g.vectors[k], p_.wants_vectors[k]));
        for (std::size_t k = 0; k < all.size(); ++k)
            gradients_.grad_weights.push_back(
                {output("gradient of weight", groups_ * all[k].elements(), p_.wants_weights[k]), nullptr});
        for (std::size_t k = 0; k < all.size(); ++k)
            gradients_.grad_biases.push_back(
                output("gradient of bias", groups_ * all[k].parts * all[k].width, p_.wants_biases[k]));
    }

    const Problem& p_;
    Index groups_;
    unrolled::Call<T> call_{};
    unrolled::Gradients<T> gradients_{};
    std::vector<std::unique_ptr<Guarded<T>>> arrays_;
    std::vector<std::unique_ptr<Guarded<Index>>> indices_;
    std::vector<Out> outs_;
    Guarded<T>* saved_ = nullptr;
    bool saved_written_ = true;
};

}  // namespace core_test
