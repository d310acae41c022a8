// Sizes that callers and files claim.
#pragma once

#include "support/types.h"

namespace unrolled {

// a * b; throws std::invalid_argument where one is negative or that is far beyond any call.
Index product(Index a, Index b);

}  // namespace unrolled
