// One sweep from tensors, in either direction.
#pragma once

#include <nanobind/nanobind.h>

namespace unrolled {

// Adds the class `Work` to the module.
void bind_compiled_sweep(nanobind::module_& m);

}  // namespace unrolled
