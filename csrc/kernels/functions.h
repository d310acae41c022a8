// Elementary functions on vectors of float and double, with their errors in units in the last place (ULP)
// of the result.
#pragma once

#include <math.h>

#include "kernels/simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Constants of exp by type: range, ln 2 in two parts, number of terms of the series.
template <class T>
struct Format;

template <>
struct Format<float> {
    static constexpr float high = 88.722839f, low = -103.9f, safe = 88.37f;
    static constexpr float magic = 12582912.0f, log2e = 1.44269504088896341f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr int terms = 7, mantissa = 23, bias = 127;
};

template <>
struct Format<double> {
    static constexpr double high = 709.782712893384, low = -745.2, safe = 709.4;
    static constexpr double magic = 6755399441055744.0, log2e = 1.4426950408889634074;
    static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
    static constexpr int terms = 13, mantissa = 52, bias = 1023;
};

constexpr double kInverseFactorial[] = {1.0,
                                        1.0,
                                        1.0 / 2,
                                        1.0 / 6,
                                        1.0 / 24,
                                        1.0 / 120,
                                        1.0 / 720,
                                        1.0 / 5040,
                                        1.0 / 40320,
                                        1.0 / 362880,
                                        1.0 / 3628800,
                                        1.0 / 39916800,
                                        1.0 / 479001600,
                                        1.0 / 6227020800.0};

// Terms [First, First + Count) of the series of exp(r), divided by r^First, in pairs of pairs (Estrin):
// shorter chains of dependent operations than Horner's.
template <class T, int First, int Count>
inline Vec<T> series(Vec<T> r, Vec<T> r2, Vec<T> r4, Vec<T> r8) {
    constexpr int half = Count > 8 ? 8 : Count > 4 ? 4 : Count > 2 ? 2 : 1;
    if constexpr (Count == 1) {
        return broadcast(static_cast<T>(kInverseFactorial[First]));
    } else {
        const Vec<T> low = series<T, First, half>(r, r2, r4, r8);
        const Vec<T> high = series<T, First + half, Count - half>(r, r2, r4, r8);
        return low + high * (half == 8 ? r8 : half == 4 ? r4 : half == 2 ? r2 : r);
    }
}

// exp(y) = 2^n (1 + q): Cody-Waite reduction by ln 2 in two parts, Taylor series of exp(r) - 1 for |r| <=
// ln2/2. `n` is an integer in the low bits of the sum with `magic`.
template <class T>
struct Exponential {
    Vec<T> q;
    Mask<T> n;

    explicit Exponential(Vec<T> y) {
        using F = Format<T>;
        const Vec<T> shifted = y * F::log2e + F::magic;
        const Vec<T> whole = shifted - F::magic;
        Vec<T> r = y - whole * F::ln2_high;
        r = r - whole * F::ln2_low;
        const Vec<T> r2 = r * r, r4 = r2 * r2;
        q = r + r2 * series<T, 2, F::terms - 1>(r, r2, r4, r4 * r4);
        n = (Mask<T>)shifted - (Mask<T>)broadcast(F::magic);
    }
};

template <class T>
inline Vec<T> power_of_two(Mask<T> n) {
    return (Vec<T>)((n + Format<T>::bias) << Format<T>::mantissa);
}

// x clamped to [-bound, bound]; NaN stays NaN.
template <class T>
inline Vec<T> clamp_v(Vec<T> x, T bound) {
    return max_v<T>(broadcast(-bound), min_v<T>(broadcast(bound), x));
}

// exp(x), within 1.5 ULP; subnormal below the normal range, then 0; infinity above; NaN for NaN.
template <class T>
inline Vec<T> exp_v(Vec<T> x) {
    using F = Format<T>;
    const Vec<T> high = broadcast(F::high), low = broadcast(F::low);
    const Vec<T> y = select<T>(x > high, high, select<T>(x < low, low, x));
    const Exponential<T> e(y);
    // 2^n in two factors, so that results near both ends of the range are exact.
    const Mask<T> first = e.n >> 1, second = e.n - first;
    Vec<T> result = (1 + e.q) * power_of_two<T>(first) * power_of_two<T>(second);
    result = select<T>(x > high, broadcast(static_cast<T>(__builtin_inf())), result);
    result = select<T>(x < low, Vec<T>{}, result);
    return select<T>(x != x, x, result);
}

// 1 / (1 + exp(-x)), within 2.5 ULP; where exp(-x) would overflow, the value at the last x where it does
// not.
template <class T>
inline Vec<T> sigmoid_v(Vec<T> x) {
    const Vec<T> y = -clamp_v<T>(x, Format<T>::safe);
    const Exponential<T> e(y);
    const Vec<T> scale = power_of_two<T>(e.n);
    return 1 / (1 + (scale + scale * e.q));
}

// tanh(x) = (exp(2x) - 1) / (exp(2x) + 1), within 3 ULP; for small x the numerator is computed without
// cancellation.
template <class T>
inline Vec<T> tanh_v(Vec<T> x) {
    const Vec<T> y = clamp_v<T>(x, T(20));
    const Exponential<T> e(y + y);
    const Vec<T> scale = power_of_two<T>(e.n);
    const Vec<T> less = (scale - 1) + scale * e.q;
    return less / (less + 2);
}

template <class T, class F>
inline Vec<T> map_lanes(Vec<T> x, F f) {
    for (int i = 0; i < lanes<T>; ++i) x[i] = f(x[i]);
    return x;
}

template <class T>
inline Vec<T> log_v(Vec<T> x) {
    return map_lanes<T>(x, [](T v) { return static_cast<T>(::log(static_cast<double>(v))); });
}
template <class T>
inline Vec<T> sqrt_v(Vec<T> x) {
    return map_lanes<T>(x, [](T v) { return static_cast<T>(::sqrt(static_cast<double>(v))); });
}
template <class T>
inline Vec<T> pow_v(Vec<T> x, Vec<T> y) {
    for (int i = 0; i < lanes<T>; ++i)
        x[i] = static_cast<T>(::pow(static_cast<double>(x[i]), static_cast<double>(y[i])));
    return x;
}
template <class T>
inline Vec<T> softplus_v(Vec<T> x) {
    return map_lanes<T>(
        x, [](T v) { return v > 20 ? v : static_cast<T>(::log1p(::exp(static_cast<double>(v)))); });
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
