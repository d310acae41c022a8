// Vectors of one width, by the compiler's vector extensions. One meaning per instruction set: this
// file is compiled several times with other flags, in a namespace of its own each time.
#pragma once

#include <cstdint>
#include <cstring>

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
};

template <>
struct Simd<double> {
    typedef double V __attribute__((vector_size(UNROLLED_BYTES)));
    typedef std::int64_t M __attribute__((vector_size(UNROLLED_BYTES)));
    typedef double U __attribute__((vector_size(UNROLLED_BYTES), aligned(8), may_alias));
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
inline Vec<T> fill(T x) {
    return x - Vec<T>{};
}

// Keeps a vector in its register: g++ 12 else loads it again for each use.
template <class V>
inline void keep(V& v) {
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

// Copies numbers; none from nowhere is fine, as it is not for memcpy.
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

// The smaller, or the larger, of a and b; where one is NaN, b (on NEON, NaN).
template <class T>
inline Vec<T> smaller(Vec<T> a, Vec<T> b) {
    return a < b ? a : b;
}
template <class T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}
#if defined(__AVX512F__) && UNROLLED_BYTES == 64
template <>
inline Vec<float> smaller<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm512_min_ps((__m512)a, (__m512)b);
}
template <>
inline Vec<float> larger<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm512_max_ps((__m512)a, (__m512)b);
}
#elif defined(__AVX2__) && UNROLLED_BYTES == 32
template <>
inline Vec<float> smaller<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm256_min_ps((__m256)a, (__m256)b);
}
template <>
inline Vec<float> larger<float>(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
}
#endif

// The first `count` numbers at p, zeros after them; nothing beyond is read.
template <class T>
inline Vec<T> load_part(const T* p, std::int64_t count) {
    if (count >= lanes<T>) return load(p);
    T all[lanes<T>] = {};
    copy(all, p, count);
    return load(all);
}

template <class T>
inline void store_part(T* p, Vec<T> v, std::int64_t count) {
    if (count >= lanes<T>) {
        store(p, v);
        return;
    }
    T all[lanes<T>];
    store(all, v);
    copy(p, all, count);
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
