// Random small changes of the text of a program.
#pragma once

#include <string>

#include "problem.h"

namespace core_test {

// One to three changes: bytes, lines, numbers, operations.
std::string mutate(const std::string& text, Random& random);

}  // namespace core_test
