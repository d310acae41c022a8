// Layers from arrays for those who have no torch, and streams of single steps.
#pragma once

#include <nanobind/nanobind.h>

namespace unrolled {

namespace nb = nanobind;

// Adds `Layer`, `Line`, `Pooling`, `Stream` and `activate` to the module.
void bind_stream(nb::module_& m);

}  // namespace unrolled
