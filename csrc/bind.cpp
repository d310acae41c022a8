// The seam between Python and the core: argument conversion only, no arithmetic.
#include <nanobind/nanobind.h>

#include "dispatch.h"

namespace nb = nanobind;

NB_MODULE(_core, m) {
    m.doc() = "The native core of Unrolled.";
    m.def(
        "instruction_sets",
        [] {
            int count = 0;
            const unrolled::InstructionSet* sets = unrolled::instruction_sets(&count);
            nb::dict result;
            for (int i = 0; i < count; ++i) result[sets[i].name] = sets[i].available;
            return result;
        },
        "Instruction sets the core knows, best first, each with whether this processor offers it.",
        nb::sig("def instruction_sets() -> dict[str, bool]"));
}
