// Vectors of one width, by the compiler's vector extensions. This file is compiled once per instruction
// set, in a namespace of its own each time.
#pragma once

#include <cstdint>
#include <cstring>

#include "dispatch/call.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef UNROLLED_BUILD
#error "compile with -DUNROLLED_BUILD=name -DUNROLLED_BYTES=bytes"
#endif

namespace unrolled {
namespace UNROLLED_BUILD {

template <class T>
struct Simd;

template <>
struct Simd<float> {
    typedef float V __attribute__((vector_size(UNROLLED_BYTES)));
    typedef std::int32_t M __attribute__((vector_size(UNROLLED_BYTES)));
    typedef float U __attribute__((vector_size(UNROLLED_BYTES), aligned(4), may_alias));
    // As many numbers of 16 bits, and the floats whose upper halves they are.
    typedef Half H __attribute__((vector_size(UNROLLED_BYTES / 2), aligned(2), may_alias));
    typedef std::uint32_t B __attribute__((vector_size(UNROLLED_BYTES)));
    typedef float F __attribute__((vector_size(UNROLLED_BYTES)));
    typedef signed char C __attribute__((vector_size(UNROLLED_BYTES / 2), aligned(1), may_alias));
    typedef std::int16_t S __attribute__((vector_size(UNROLLED_BYTES)));
};

template <>
struct Simd<double> {
    typedef double V __attribute__((vector_size(UNROLLED_BYTES)));
    typedef std::int64_t M __attribute__((vector_size(UNROLLED_BYTES)));
    typedef double U __attribute__((vector_size(UNROLLED_BYTES), aligned(8), may_alias));
    typedef Half H __attribute__((vector_size(UNROLLED_BYTES / 4), aligned(2), may_alias));
    typedef std::uint32_t B __attribute__((vector_size(UNROLLED_BYTES / 2)));
    typedef float F __attribute__((vector_size(UNROLLED_BYTES / 2)));
};

template <class T>
using Vec = typename Simd<T>::V;
template <class T>
using Mask = typename Simd<T>::M;

template <class T>
constexpr int lanes = UNROLLED_BYTES / static_cast<int>(sizeof(T));

template <class T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename Simd<T>::U*>(p);
}

template <class T>
inline void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename Simd<T>::U*>(p) = v;
}

template <class T>
inline Vec<T> broadcast(T x) {
    return x - Vec<T>{};
}

// Keeps a vector in its register: g++ 12 would load it again for each use.
template <class V>
inline void pin_register(V& v) {
#if defined(__AVX512F__) && UNROLLED_BYTES == 64
    asm("" : "+v"(v));
#elif (defined(__AVX2__) && UNROLLED_BYTES == 32) || (defined(__SSE2__) && UNROLLED_BYTES == 16)
    asm("" : "+x"(v));
#elif defined(__aarch64__) && UNROLLED_BYTES == 16
    asm("" : "+w"(v));
#else
    (void)v;
#endif
}

// Copies numbers; unlike with memcpy, none from null is allowed.
template <class T>
inline void copy(T* to, const T* from, std::int64_t count) {
    if (count > 0) std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
}

template <class T>
inline void clear(T* to, std::int64_t count) {
    if (count > 0) std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

template <class T>
inline Vec<T> select(Mask<T> m, Vec<T> a, Vec<T> b) {
    return m ? a : b;
}

// The minimum or maximum of a and b; where one is NaN, b (on NEON, NaN).
template <class T>
inline Vec<T> min_v(Vec<T> a, Vec<T> b) {
    return a < b ? a : b;
}
template <class T>
inline Vec<T> max_v(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}
#if defined(__AVX512F__) && UNROLLED_BYTES == 64
template <>
inline Vec<float> min_v<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm512_min_ps((__m512)a, (__m512)b);
}
template <>
inline Vec<float> max_v<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm512_max_ps((__m512)a, (__m512)b);
}
#elif defined(__AVX2__) && UNROLLED_BYTES == 32
template <>
inline Vec<float> min_v<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm256_min_ps((__m256)a, (__m256)b);
}
template <>
inline Vec<float> max_v<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
}
#endif

// The first `count` numbers at p, then zeros; nothing behind them is read.
template <class T>
inline Vec<T> load_part(const T* p, std::int64_t count) {
    if (count >= lanes<T>) return load(p);
    T buffer[lanes<T>] = {};
    copy(buffer, p, count);
    return load(buffer);
}

template <class T>
inline void store_part(T* p, Vec<T> v, std::int64_t count) {
    if (count >= lanes<T>) {
        store(p, v);
        return;
    }
    T buffer[lanes<T>];
    store(buffer, v);
    copy(p, buffer, count);
}

// A bfloat16 is the upper half of a float.
inline float widened(Half half) {
    const std::uint32_t bits = std::uint32_t(half) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
}
template <class T>
inline T widened(T x) {
    return x;
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline Half rounded_to_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<Half>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

typedef signed char Int8;

// Vectors from numbers of T or bfloat16.
template <class T>
inline Vec<T> load_as(const T* p) {
    return load(p);
}
template <class T>
inline Vec<T> load_as(const Half* p) {
    typedef Simd<T> S;
#if defined(__AVX512F__) && UNROLLED_BYTES == 64
    if constexpr (sizeof(T) == sizeof(float)) {
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return (Vec<T>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
    }
#elif defined(__AVX2__) && UNROLLED_BYTES == 32
    if constexpr (sizeof(T) == sizeof(float)) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return (Vec<T>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
    }
#endif
    const auto halves = *reinterpret_cast<const typename S::H*>(p);
    const auto bits = __builtin_convertvector(halves, typename S::B) << 16;
    return __builtin_convertvector((typename S::F)bits, Vec<T>);
}
template <class T>
inline Vec<T> load_part_as(const T* p, std::int64_t count) {
    return load_part(p, count);
}
template <class T>
inline Vec<T> load_part_as(const Half* p, std::int64_t count) {
    if (count >= lanes<T>) return load_as<T>(p);
    Half buffer[lanes<T>] = {};
    copy(buffer, p, count);
    return load_as<T>(buffer);
}

// Two integers of 16 bits in each lane: from int8, or the same two in all lanes.
typedef Mask<float> Int16Pairs;

inline Int16Pairs load_pairs(const Int8* p) {
    // g++ 12 widens vectors of bytes one by one.
#if defined(__AVX512F__) && UNROLLED_BYTES == 64
    return (Int16Pairs)_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__) && UNROLLED_BYTES == 32
    return (Int16Pairs)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    const auto bytes = *reinterpret_cast<const Simd<float>::C*>(p);
    return (Int16Pairs) __builtin_convertvector(bytes, Simd<float>::S);
#endif
}

inline Int16Pairs broadcast_pair(const std::int16_t* p) {
    std::int32_t both;
    std::memcpy(&both, p, sizeof(both));
    return both - Int16Pairs{};
}

// Adds in each lane the products of the first two and of the second two.
inline void add_products(Int16Pairs& sum, Int16Pairs x, Int16Pairs w) {
#if defined(__AVX512F__) && UNROLLED_BYTES == 64
    sum += (Int16Pairs)_mm512_madd_epi16((__m512i)x, (__m512i)w);
#elif defined(__AVX2__) && UNROLLED_BYTES == 32
    sum += (Int16Pairs)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#else
    sum += (x << 16 >> 16) * (w << 16 >> 16) + (x >> 16) * (w >> 16);
#endif
}

// Numbers [at, at + count) of an array of the caller, read or written.
template <class T>
inline void read(const Storage<const T>& from, std::int64_t at, T* to, std::int64_t count) {
    if (from.native) return copy(to, from.native + at, count);
    for (std::int64_t k = 0; k < count; ++k) to[k] = static_cast<T>(widened(from.half[at + k]));
}
template <class T>
inline void write(const Storage<T>& to, std::int64_t at, const T* from, std::int64_t count) {
    if (to.native) return copy(to.native + at, from, count);
    for (std::int64_t k = 0; k < count; ++k) to.half[at + k] = rounded_to_bf16(static_cast<float>(from[k]));
}

// The same numbers in place if they have type T, else read into row `k` of a buffer with pitch `ld`.
template <class T>
inline const T* native_row(const Storage<const T>& from, std::int64_t at, std::int64_t count, T* buffer,
                           std::int64_t k, std::int64_t ld) {
    if (!from.half) return from.native + at;
    read(from, at, buffer + k * ld, count);
    return buffer + k * ld;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
