// float16 (IEEE 754 binary16) by integer operations: the same result on every processor.
#pragma once

#include "kernels/simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

inline float of_bits(std::uint32_t bits) {
    float result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
}

inline std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}

// Exact. A subnormal number is a multiple of 2^-24.
inline float from_float16(Half half) {
    const std::uint32_t sign = std::uint32_t(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    const std::uint32_t shifted = magnitude << 13;
    const float small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
    const std::uint32_t bits = magnitude < 0x0400u   ? bits_of(small)
                               : magnitude < 0x7c00u ? shifted + (112u << 23)
                                                     : shifted | 0x7f800000u;
    return of_bits(sign | bits);
}

// Rounds to nearest, ties to even; NaN stays NaN, overflow gives infinity.
inline Half to_float16(float x) {
    const std::uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    // Below the normal numbers the sum with 0.5 has the result in its last bits, rounded by the
    // processor.
    const std::uint32_t small = bits_of(of_bits(magnitude) + 0.5f) - 0x3f000000u;
    const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const std::uint32_t result = magnitude > 0x7f800000u    ? 0x7e00u
                                 : magnitude >= 0x477ff000u ? 0x7c00u
                                 : magnitude < 0x38800000u  ? small
                                                            : normal;
    return static_cast<Half>(result | ((bits >> 16) & 0x8000u));
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
