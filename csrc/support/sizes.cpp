#include "support/sizes.h"

#include <stdexcept>
#include <string>

namespace unrolled {
namespace {

// Far above any call. Within it no sum or product of sizes overflows, nor do the sizes of buffers.
constexpr Index kMaxSize = Index(1) << 40;

}  // namespace

Index checked_product(Index a, Index b) {
    if (a < 0 || b < 0 || a > kMaxSize || (b > 0 && a > kMaxSize / b))
        throw std::invalid_argument("sizes: product must be from 0 to " + std::to_string(kMaxSize) +
                                    ", got " + std::to_string(a) + " times " + std::to_string(b));
    return a * b;
}

}  // namespace unrolled
