// The parts of the module _core.
#pragma once

#include <nanobind/nanobind.h>

namespace unrolled {

namespace nb = nanobind;

void bind_compiled_sweep(nb::module_& m);  // CompiledSweep
void bind_fast_path(nb::module_& m);       // FastPath
void bind_stream(nb::module_& m);          // Layer, Linear, Pooling, Stream, activate

}  // namespace unrolled
