// The seam between Python and the core: argument conversion only, no arithmetic.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch/raw_call.h"
#include "model/streaming.h"
#include "python/fast_path.h"
#include "dispatch/builds.h"
#include "python/stream.h"
#include "python/compiled_sweep.h"
#include "python/tensors.h"
#include "python/unlocked.h"

namespace nb = nanobind;

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
    nb::class_<Program>(m, "Program", "A program that was read, checked and scheduled.")
        .def("__init__",
             [](Program* self, const std::string& text, Index H, Index P, Index I) {
                 const Unlocked unlocked;
                 new (self) Program(parse(text, H, P, I));
             },
             nb::arg("text"), nb::arg("H"), nb::arg("P"), nb::arg("I") = 0)
        .def_ro("saved_width", &Program::saved_pitch,
                "Numbers that forward keeps for backward, a token.")
        .def_prop_ro("room", &room_of, "Numbers that a step of one sequence works on, at most.")
        .def_ro("state_widths", &Program::states, "Units of each state.")
        .def_prop_ro("reached", [](const Program& p) {
            return nb::make_tuple(p.reached.products, p.reached.vectors, p.reached.states);
        }, "Whether a gradient reaches each product (the input's first), vector and state.")
        .def_ro("saved_whole", &Program::saved_whole,
                "Whether forward writes all of them: there is no room between vectors.");
    // A call in numbers, for callers whose arrays are no tensors.
    const auto free = nb::call_guard<Unlocked>();
    m.def("forward", [](const Program& p, const std::string& build, bool wide, const Numbers& shape,
                        const Numbers& arrays) {
        const Told told{&p, shape, arrays};
        run_forward(&told, 1, build, wide);
    }, free, "Run forward; see raw_call.h.");
    m.def("backward", [](const Program& p, const std::string& build, bool wide, const Numbers& shape,
                         const Numbers& arrays) {
        const Told told{&p, shape, arrays};
        run_backward(&told, 1, build, wide);
    }, free, "Run backward; see raw_call.h.");
    m.def("name_tensors", &name_tensors, nb::arg("kind"), nb::arg("single"),
          "Name the class of all tensors, and one in float32.");
    bind_sweeps(m);
    bind_direct(m);
    bind_streams(m);
}
