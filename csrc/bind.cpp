// The seam between Python and the core: argument conversion and checks only, no arithmetic.
//
// Arrays come as addresses with their number of elements, since a tensor's pointer costs Python a
// tenth of what an array object does; the sizes are checked here against the program.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "api.h"
#include "dispatch.h"

namespace nb = nanobind;

namespace unrolled {
namespace {

using Array = std::pair<std::uintptr_t, Index>;  // address (0: none), elements
using Arrays = std::vector<Array>;

template <class T>
T* pointer(const Array& a, Index wanted, bool optional, const char* what) {
    if (a.first == 0 && (optional || wanted == 0)) return nullptr;
    if (a.first == 0 || a.second != wanted)
        throw std::invalid_argument(std::string(what) + ": wanted " + std::to_string(wanted) +
                                    " elements, got " + std::to_string(a.second));
    return reinterpret_cast<T*>(a.first);
}

void same_count(std::size_t found, std::size_t wanted, const char* what) {
    if (found != wanted)
        throw std::invalid_argument(std::string(what) + ": wanted " + std::to_string(wanted) +
                                    " arrays, got " + std::to_string(found));
}

// What forward and backward have in common: sizes and inputs.
struct Inputs {
    std::vector<Index> sizes;
    Index I;
    Array tokens;
    Arrays weights, biases;  // the input product first
    Arrays vectors, initial, history, final, stored;
    int threads;
};

template <class T>
Call<T> make_call(const Program& p, const Inputs& in) {
    Call<T> call{};
    call.program = &p;
    call.T_steps = static_cast<Index>(in.sizes.size());
    if (in.sizes.empty()) throw std::invalid_argument("sizes: wanted at least one step");
    call.N = in.sizes[0];
    call.I = in.I;
    call.sizes = in.sizes.data();
    Index before = call.N;
    for (Index n : in.sizes) {
        if (n < 0 || n > before || call.total > (Index(1) << 40))
            throw std::invalid_argument("sizes: wanted falling numbers of rows");
        call.total += n;
        before = n;
    }
    if (in.I < 0 || in.threads < 1) throw std::invalid_argument("negative size or no thread");
    const std::size_t products = p.products.size(), states = p.states.size();
    same_count(in.weights.size(), products + 1, "weights");
    same_count(in.biases.size(), products + 1, "biases");
    same_count(in.vectors.size(), p.vectors.size(), "vectors");
    for (const auto* list : {&in.initial, &in.history, &in.final})
        same_count(list->size(), states, "states");
    const Index M = p.x_parts * p.x_width;
    call.tokens = pointer<const T>(in.tokens, call.total * in.I, false, "tokens");
    call.input.weight = pointer<const T>(in.weights[0], M * in.I, false, "input weight");
    call.input.bias = pointer<const T>(in.biases[0], M, true, "input bias");
    for (std::size_t k = 0; k < products; ++k) {
        const Index rows = p.products[k].parts * p.products[k].width;
        call.products.push_back(
            {pointer<const T>(in.weights[k + 1], rows * p.products[k].source, false, "weight"),
             pointer<const T>(in.biases[k + 1], rows, true, "bias")});
    }
    for (std::size_t k = 0; k < p.vectors.size(); ++k)
        call.vectors.push_back(pointer<const T>(in.vectors[k], p.vectors[k], false, "vector"));
    for (std::size_t k = 0; k < states; ++k) {
        const Index w = p.states[k];
        call.initial.push_back(pointer<const T>(in.initial[k], call.N * w, false, "initial"));
        call.history.push_back(pointer<T>(in.history[k], call.total * w, k > 0, "history"));
        call.final.push_back(pointer<T>(in.final[k], call.N * w, false, "final"));
    }
    if (!in.stored.empty()) same_count(in.stored.size(), p.stored.size(), "stored");
    for (std::size_t k = 0; k < in.stored.size(); ++k)
        call.stored.push_back(pointer<T>(
            in.stored[k], call.total * p.nodes[p.stored[k]].width, false, "stored"));
    call.threads = in.threads;
    return call;
}

struct Outputs {
    Array grad_output;
    Arrays grad_final;
    Array grad_x;
    Arrays grad_products, sources, grad_initial, grad_vectors;
    Array grad_tokens;
    Arrays grad_weights, grad_biases;  // the input product first
};

template <class T>
Gradients<T> make_gradients(const Program& p, const Call<T>& call, const Outputs& out) {
    Gradients<T> g{};
    g.call = &call;
    const std::size_t products = p.products.size(), states = p.states.size();
    same_count(out.grad_final.size(), states, "grad_final");
    same_count(out.grad_initial.size(), states, "grad_initial");
    same_count(out.grad_products.size(), products, "grad_products");
    same_count(out.sources.size(), products, "sources");
    same_count(out.grad_vectors.size(), p.vectors.size(), "grad_vectors");
    same_count(out.grad_weights.size(), products + 1, "grad_weights");
    same_count(out.grad_biases.size(), products + 1, "grad_biases");
    same_count(call.stored.size(), p.stored.size(), "stored");
    const Index M = p.x_parts * p.x_width, total = call.total;
    g.grad_output = pointer<const T>(out.grad_output, total * p.states[0], false, "grad_output");
    g.grad_x = pointer<T>(out.grad_x, total * M, false, "grad_x");
    for (std::size_t k = 0; k < states; ++k) {
        const Index count = call.N * p.states[k];
        if (call.total > 0 && !call.history[k]) throw std::invalid_argument("history is missing");
        g.grad_final.push_back(pointer<const T>(out.grad_final[k], count, false, "grad_final"));
        g.grad_initial.push_back(pointer<T>(out.grad_initial[k], count, false, "grad_initial"));
    }
    g.grad_input_weight = pointer<T>(out.grad_weights[0], M * call.I, true, "grad input weight");
    g.grad_input_bias = pointer<T>(out.grad_biases[0], M, true, "grad input bias");
    for (std::size_t k = 0; k < products; ++k) {
        const Product& q = p.products[k];
        const Index rows = q.parts * q.width;
        const bool is_state = p.nodes[p.sources[k]].leaf == Leaf::state;
        g.grad_products.push_back(
            pointer<T>(out.grad_products[k], total * rows, false, "grad_products"));
        g.source.push_back(is_state ? nullptr
                                    : pointer<T>(out.sources[k], total * q.source, false, "source"));
        g.grad_weights.push_back(
            pointer<T>(out.grad_weights[k + 1], rows * q.source, true, "grad weight"));
        g.grad_biases.push_back(pointer<T>(out.grad_biases[k + 1], rows, true, "grad bias"));
    }
    for (std::size_t k = 0; k < p.vectors.size(); ++k)
        g.grad_vectors.push_back(
            pointer<T>(out.grad_vectors[k], p.vectors[k], false, "grad_vectors"));
    g.grad_tokens = pointer<T>(out.grad_tokens, total * call.I, true, "grad_tokens");
    return g;
}

Inputs make_inputs(std::vector<Index> sizes, Index I, Array tokens, Arrays weights, Arrays biases,
                   Arrays vectors, Arrays initial, Arrays history, Arrays final, Arrays stored,
                   int threads) {
    return {std::move(sizes), I,      tokens,  std::move(weights), std::move(biases),
            std::move(vectors), std::move(initial), std::move(history), std::move(final),
            std::move(stored), threads};
}

void forward(const Program& p, const std::string& build, bool wide, const Inputs& in) {
    nb::gil_scoped_release free;
    const Build& kernels = find_build(build);
    if (wide) kernels.forward_double(make_call<double>(p, in));
    else kernels.forward_float(make_call<float>(p, in));
}

template <class T>
void backward_as(const Program& p, void (*run)(const Gradients<T>&), const Inputs& in,
                 const Outputs& out) {
    const Call<T> call = make_call<T>(p, in);
    run(make_gradients(p, call, out));
}

}  // namespace
}  // namespace unrolled

NB_MODULE(_core, m) {
    using namespace unrolled;
    m.doc() = "The native core of Unrolled.";
    // Programs live in a cache, and in graphs of autograd, until the interpreter ends.
    nb::set_leak_warnings(false);
    m.def(
        "instruction_sets",
        [] {
            int count = 0;
            const InstructionSet* sets = instruction_sets(&count);
            nb::dict result;
            for (int i = 0; i < count; ++i) result[sets[i].name] = sets[i].available;
            return result;
        },
        "Instruction sets the core knows, best first, each with whether this processor offers it.",
        nb::sig("def instruction_sets() -> dict[str, bool]"));
    m.def("builds", [] {
        nb::list result;
        for (const Build* build : available_builds()) result.append(build->name);
        return result;
    }, "Builds of the kernels that this processor can run, best first.",
        nb::sig("def builds() -> list[str]"));
    nb::class_<Program>(m, "Program", "A program that was read and checked.")
        .def("__init__",
             [](Program* self, const std::string& text, Index H, Index P) {
                 new (self) Program(parse(text, H, P));
             },
             nb::arg("text"), nb::arg("H"), nb::arg("P"))
        .def_prop_ro("state_sources", [](const Program& p) {
            std::vector<bool> found;
            for (int node : p.sources) found.push_back(p.nodes[node].leaf == Leaf::state);
            return found;
        }, "For each product, whether it multiplies a state.")
        .def_prop_ro("stored_widths", [](const Program& p) {
            std::vector<Index> found;
            for (int node : p.stored) found.push_back(p.nodes[node].width);
            return found;
        }, "Widths of the vectors that forward stores for backward.");
    nb::class_<Inputs>(m, "Inputs", "Sizes, inputs and results of a forward run.")
        .def("__init__", [](Inputs* self, std::vector<Index> sizes, Index I, Array tokens,
                            Arrays weights, Arrays biases, Arrays vectors, Arrays initial,
                            Arrays history, Arrays final, Arrays stored, int threads) {
            new (self) Inputs(make_inputs(std::move(sizes), I, tokens, std::move(weights),
                                          std::move(biases), std::move(vectors),
                                          std::move(initial), std::move(history),
                                          std::move(final), std::move(stored), threads));
        });
    m.def("forward", &unrolled::forward, "Run forward.");
    m.def("backward", [](const Program& p, const std::string& build, bool wide, const Inputs& in,
                         Array grad_output, Arrays grad_final, Array grad_x, Arrays grad_products,
                         Arrays sources, Arrays grad_initial, Arrays grad_vectors,
                         Array grad_tokens, Arrays grad_weights, Arrays grad_biases) {
        const Outputs out{grad_output, std::move(grad_final), grad_x, std::move(grad_products),
                          std::move(sources), std::move(grad_initial), std::move(grad_vectors),
                          grad_tokens, std::move(grad_weights), std::move(grad_biases)};
        nb::gil_scoped_release free;
        const Build& kernels = find_build(build);
        if (wide) backward_as<double>(p, kernels.backward_double, in, out);
        else backward_as<float>(p, kernels.backward_float, in, out);
    }, "Run backward.");
}
