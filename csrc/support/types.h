// Types and sizes that every package uses.
#pragma once

#include <cstdint>

namespace unrolled {

using Index = std::int64_t;
using Half = std::uint16_t;  // the bits of a bfloat16 or a float16

// Rows of buffers are padded to whole vectors of every build: a multiple of 16 numbers.
constexpr Index pitch(Index width) { return (width + 15) / 16 * 16; }

}  // namespace unrolled
