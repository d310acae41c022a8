// Sizes from callers and files.
#pragma once

#include "support/types.h"

namespace unrolled {

// a * b; throws std::invalid_argument where a factor is negative or the product is far above any call's.
Index checked_product(Index a, Index b);

}  // namespace unrolled
