// Sizes from callers and files.
#pragma once

#include "support/types.h"

namespace unrolled {

// a * b; throws std::invalid_argument if a factor is negative or the product is far above that of any call.
Index checked_product(Index a, Index b);

}  // namespace unrolled
