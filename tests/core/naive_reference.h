// A naive reference of the core: it evaluates a program node by node, token by token, in double precision. It
// packs nothing, saves everything and has no schedule; every build is compared with it.
#pragma once

#include "problem.h"

namespace core_test {

// Output, final states and all gradients, in the order of `Run`.
Results solve(const Problem& problem);

// One operation on numbers.
double apply(const std::string& code, const double* args);

}  // namespace core_test
