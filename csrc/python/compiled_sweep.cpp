// Runs sweeps from tensors, one or several at once.
#include "python/compiled_sweep.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/bind.h"
#include "python/interpreter_lock.h"
#include "python/interrupt.h"

namespace unrolled {
namespace {

using Kernel = void (*)(const RawCall*, std::size_t, const std::string&, bool);

// Runs without the interpreter's lock.
nb::object execute(CompiledSweep::Execution run, Kernel kernel, const std::string& build) {
    Interrupt interrupt;
    run.call.cancel = &interrupt;
    std::vector<RawCall> calls(1, std::move(run.call));
    calls.reserve(static_cast<std::size_t>(run.count));
    for (Index g = 1; g < run.count; ++g) {
        calls.push_back(calls[0]);
        for (std::size_t k = 0; k < run.steps.size(); ++k) calls.back().arrays[2 * k] += g * run.steps[k];
    }
    {
        const ReleasedLock released;
        kernel(calls.data(), calls.size(), build, run.inputs.wide());
    }
    interrupt.raise();
    return run.result;
}

nb::object execute(CompiledSweep::Execution first, CompiledSweep::Execution second, Kernel kernel,
                   const std::string& build) {
    if (first.inputs.type != second.inputs.type)
        throw std::runtime_error("tensors: must have the same type in both directions");
    Interrupt interrupt;
    RawCall calls[2] = {std::move(first.call), std::move(second.call)};
    for (RawCall& call : calls) call.cancel = &interrupt;
    {
        const ReleasedLock released;
        kernel(calls, 2, build, first.inputs.wide());
    }
    interrupt.raise();
    return nb::make_tuple(first.result, second.result);
}

nb::object forward(const CompiledSweep& sweep, nb::handle tensors, bool training, Index threads,
                   Index saved_size, WeightCache* cache) {
    CompiledSweep::Execution run = sweep.forward(tensors, {}, training, threads, saved_size);
    run.call.cache = cache;
    return execute(std::move(run), run_forward, sweep.build());
}

nb::object forward_bidirectional(const CompiledSweep& sweep, const CompiledSweep& reverse, nb::handle tensors,
                                 nb::handle reverse_tensors, bool training, Index threads) {
    return execute(sweep.forward(tensors, {}, training, threads),
                   reverse.forward(reverse_tensors, {}, training, threads), run_forward, sweep.build());
}

nb::object forward_batched(const CompiledSweep& sweep, Index count, std::vector<bool> stacked,
                           nb::handle tensors, bool training, Index threads) {
    const Batched batched{count, std::move(stacked)};
    return execute(sweep.forward(tensors, batched, training, threads), run_forward, sweep.build());
}

nb::object backward(const CompiledSweep& sweep, nb::handle tensors, nb::handle output, nb::handle saved,
                    nb::handle grads, nb::handle needs, Index threads) {
    return execute(sweep.backward(tensors, {}, output, saved, grads, needs, threads), run_backward,
                   sweep.build());
}

// Arguments of each direction: (tensors, output, saved, grads, needs).
nb::object backward_bidirectional(const CompiledSweep& sweep, const CompiledSweep& reverse,
                                  nb::tuple arguments, nb::tuple reverse_arguments, Index threads) {
    const auto prepare = [threads](const CompiledSweep& one, nb::tuple of) {
        return one.backward(of[0], {}, of[1], of[2], of[3], of[4], threads);
    };
    return execute(prepare(sweep, arguments), prepare(reverse, reverse_arguments), run_backward,
                   sweep.build());
}

nb::object backward_batched(const CompiledSweep& sweep, Index count, std::vector<bool> stacked,
                            nb::handle tensors, nb::handle output, nb::handle saved, nb::handle grads,
                            nb::handle needs, Index threads) {
    const Batched batched{count, std::move(stacked)};
    return execute(sweep.backward(tensors, batched, output, saved, grads, needs, threads), run_backward,
                   sweep.build());
}

}  // namespace

void bind_compiled_sweep(nb::module_& m) {
    nb::class_<CompiledSweep>(m, "CompiledSweep", "What stays the same between runs of a sweep.")
        .def(nb::init<nb::handle, std::string, const IndexList&, nb::object, nb::object, Index,
                      CompiledSweep::ArrayIndices, CompiledSweep::StateShapes, Index, bool>(),
             nb::arg("program"), nb::arg("build"), nb::arg("rows"), nb::arg("counts").none(),
             nb::arg("table").none(), nb::arg("states"), nb::arg("parameters"), nb::arg("state_shapes"),
             nb::arg("groups"), nb::arg("bf16_products"))
        .def("forward", &forward, nb::arg("tensors"), nb::arg("training"), nb::arg("threads"),
             nb::arg("saved_size") = 0, nb::arg("cache").none() = nb::none())
        .def("backward", &backward, nb::arg("tensors"), nb::arg("output"), nb::arg("saved").none(),
             nb::arg("grads"), nb::arg("needs"), nb::arg("threads"))
        .def("forward_bidirectional", &forward_bidirectional, nb::arg("reverse"), nb::arg("tensors"),
             nb::arg("reverse_tensors"), nb::arg("training"), nb::arg("threads"))
        .def("backward_bidirectional", &backward_bidirectional, nb::arg("reverse"), nb::arg("arguments"),
             nb::arg("reverse_arguments"), nb::arg("threads"))
        .def("forward_batched", &forward_batched, nb::arg("count"), nb::arg("stacked"), nb::arg("tensors"),
             nb::arg("training"), nb::arg("threads"))
        .def("backward_batched", &backward_batched, nb::arg("count"), nb::arg("stacked"), nb::arg("tensors"),
             nb::arg("output"), nb::arg("saved"), nb::arg("grads"), nb::arg("needs"), nb::arg("threads"))
        .def("reached", &CompiledSweep::reached, nb::arg("tensor"),
             "Whether a gradient reaches a tensor of a run, by its number.")
        .def_prop_ro("bf16_products", &CompiledSweep::bf16_products,
                     "Whether float32 is rounded to bfloat16 in products, where the build can.")
        .def_prop_ro("total", &CompiledSweep::total, "Number of tokens.");
}

}  // namespace unrolled
