// Vectors of one width, by the compiler's vector extensions. One meaning per instruction set: this
// file is compiled several times with other flags, in a namespace of its own each time.
#pragma once

#include <cstdint>
#include <cstring>

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

// Copies numbers; none from nowhere is fine, as it is not for memcpy.
template <class T>
inline void copy(T* to, const T* from, std::int64_t count) {
    if (count > 0) std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
}

template <class T>
inline Vec<T> select(Mask<T> m, Vec<T> a, Vec<T> b) {
    return m ? a : b;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
