// The module _core: conversion of arguments, no arithmetic.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch/builds.h"
#include "dispatch/raw_call.h"
#include "model/streaming.h"
#include "python/bind.h"
#include "python/interpreter_lock.h"
#include "python/tensors.h"
#include "support/threads.h"

namespace nb = nanobind;

NB_MODULE(_core, m) {
    using namespace unrolled;
    m.doc() = "The native core of Unrolled.";
    // Programs live in a cache and in autograd graphs until the interpreter ends.
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
    m.def(
        "builds",
        [] {
            nb::list result;
            for (const Build* build : available_builds()) result.append(build->name);
            return result;
        },
        "Builds of the kernels that this processor can run, best first.",
        nb::sig("def builds() -> list[str]"));
    m.def(
        "multiplies_bfloat16", [](const std::string& build) { return find_build(build).bf16_products; },
        nb::arg("build"), "Whether a build (\"\": the best one) has products in bfloat16.");
    nb::class_<WeightCache>(m, "WeightCache", "Packed weights that a layer keeps from call to call.")
        .def(nb::init<>())
        .def("clear", &WeightCache::clear, "Forgets all of them.")
        .def_prop_ro("bytes", &WeightCache::bytes, "Of all packed matrices.")
        .def_prop_ro("hits", &WeightCache::hits, "How often a packed matrix was used again.")
        .def_prop_ro("packed", &WeightCache::packed, "How often a matrix was packed to be kept.");
    nb::class_<Program>(m, "Program", "A program, parsed, validated and scheduled.")
        .def(
            "__init__",
            [](Program* self, const std::string& text, Index H, Index P, Index I) {
                const ReleasedLock released;
                new (self) Program(parse(text, H, P, I));
            },
            nb::arg("text"), nb::arg("H"), nb::arg("P"), nb::arg("I") = 0)
        .def_ro("saved_width", &Program::saved_pitch, "Numbers that forward saves for backward, a token.")
        .def_prop_ro("footprint", &step_footprint,
                     "An upper bound of the numbers that a step of one sequence works on.")
        .def_ro("state_widths", &Program::states, "Units of each state.")
        .def_prop_ro(
            "reached",
            [](const Program& p) {
                return nb::make_tuple(p.reached.products, p.reached.vectors, p.reached.states);
            },
            "Whether a gradient reaches each product (the input's first), vector and state.")
        .def_ro("saved_whole", &Program::saved_whole,
                "Whether forward writes all of them: there is no padding between vectors.");
    // Calls with addresses, for callers whose arrays are not tensors.
    const auto free = nb::call_guard<ReleasedLock>();
    m.def(
        "forward",
        [](const Program& p, const std::string& build, bool wide, const IndexList& shape,
           const IndexList& arrays) {
            const RawCall call{&p, shape_of(shape), arrays};
            run_forward(&call, 1, build, wide);
        },
        free, "Run forward; see raw_call.h.");
    m.def(
        "backward",
        [](const Program& p, const std::string& build, bool wide, const IndexList& shape,
           const IndexList& arrays) {
            const RawCall call{&p, shape_of(shape), arrays};
            run_backward(&call, 1, build, wide);
        },
        free, "Run backward; see raw_call.h.");
    m.def("name_tensors", &name_tensors, nb::arg("kind"), nb::arg("single"),
          "Set the class of tensors, and a tensor of float32.");
    m.def("set_max_wait", &set_max_wait, nb::arg("wait"), nb::arg("distrust"),
          "For tests: the nanoseconds after which a thread is late, and for which it is distrusted then.");
    bind_compiled_sweep(m);
    bind_fast_path(m);
    bind_stream(m);
}
