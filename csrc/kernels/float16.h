// float16 (IEEE 754 binary16) by integer operations: the same result on every processor.
#pragma once

#include "kernels/simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

inline float of_bits(std::uint32_t bits) {
    float made;
    std::memcpy(&made, &bits, sizeof(made));
    return made;
}

inline std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}

// Exact. A subnormal number is a multiple of 2^-24.
inline float from_float16(Half half) {
    const std::uint32_t sign = std::uint32_t(half & 0x8000u) << 16, rest = half & 0x7fffu;
    const std::uint32_t shifted = rest << 13;
    const float small = static_cast<float>(static_cast<std::int32_t>(rest)) * 0x1p-24f;
    const std::uint32_t bits = rest < 0x0400u   ? bits_of(small)
                               : rest < 0x7c00u ? shifted + (112u << 23)
                                                : shifted | 0x7f800000u;
    return of_bits(sign | bits);
}

// Rounds to nearest, ties to even; NaN stays NaN, overflow gives infinity.
inline Half to_float16(float x) {
    const std::uint32_t bits = bits_of(x), rest = bits & 0x7fffffffu;
    // Below the normal numbers the sum with 0.5 has the result in its last bits, rounded by the
    // processor.
    const std::uint32_t small = bits_of(of_bits(rest) + 0.5f) - 0x3f000000u;
    const std::uint32_t normal = (rest - (112u << 23) + 0xfffu + ((rest >> 13) & 1u)) >> 13;
    const std::uint32_t made = rest > 0x7f800000u    ? 0x7e00u
                               : rest >= 0x477ff000u ? 0x7c00u
                               : rest < 0x38800000u  ? small
                                                     : normal;
    return static_cast<Half>(made | ((bits >> 16) & 0x8000u));
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
