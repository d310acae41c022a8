#include "support/sizes.h"

#include <stdexcept>
#include <string>

namespace unrolled {
namespace {

// Far beyond any call; within it no sum or product of sizes overflows, nor one of those that buffers
// have.
constexpr Index kLargest = Index(1) << 40;

}  // namespace

Index product(Index a, Index b) {
    if (a < 0 || b < 0 || a > kLargest || (b > 0 && a > kLargest / b))
        throw std::invalid_argument("sizes: " + std::to_string(a) + " times " + std::to_string(b) +
                                    " is negative or more than " + std::to_string(kLargest));
    return a * b;
}

}  // namespace unrolled
