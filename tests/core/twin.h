// The plain twin of the core: a program node by node, in double precision, token by token. It packs
// nothing, saves everything and knows no schedule; it is the judge of every build.
#pragma once

#include "problem.h"

namespace core_test {

// Output, final states and all gradients, in the order in which `Run` gives them.
Results solve(const Problem& problem);

// One operation on numbers.
double apply(const std::string& code, const double* args);

}  // namespace core_test
