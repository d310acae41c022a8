// The shortest way from a layer's tensors to the core: a step of a small network takes microseconds,
// and so does every line of Python around it.
#pragma once

#include <nanobind/nanobind.h>

namespace unrolled {

// Adds the class `Direct` to the module.
void bind_fast_path(nanobind::module_& m);

}  // namespace unrolled
