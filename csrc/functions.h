// Elementary functions on vectors. float: polynomials, errors stated; double: the C library.
#pragma once

#include <math.h>

#include "simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

using VF = Vec<float>;
using MF = Mask<float>;

// exp(x), at most 1 ULP or so off for |x| <= 87; 0 below -103, infinity above 88.7, NaN for NaN.
// Cody-Waite reduction by ln 2 in two parts, polynomial of degree 6 (Taylor, r in ±ln2/2).
inline VF exp_v(VF x) {
    const VF high = fill(88.722839f), low = fill(-103.9f);
    const VF y = select<float>(x > high, high, select<float>(x < low, low, x));
    const VF magic = fill(12582912.0f);
    const VF n = (y * 1.44269504088896341f + magic) - magic;
    VF r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    VF p = fill(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    // 2^n in two factors, so that results near both ends of the range come out right.
    const MF k = __builtin_convertvector(n, MF);
    const MF half = k >> 1;
    const MF rest = k - half;
    const MF first = (half + 127) << 23, second = (rest + 127) << 23;
    VF result = p * (VF)first * (VF)second;
    result = select<float>(x > high, fill(__builtin_inff()), result);
    result = select<float>(x < low, VF{}, result);
    return select<float>(x != x, x, result);
}

// 1 / (1 + exp(-x)); within 2 ULP.
inline VF sigmoid_v(VF x) { return 1.0f / (1.0f + exp_v(-x)); }

// tanh(x); within 2 ULP. Near 0 an odd polynomial (coefficients of Cephes, Moshier 1992), which
// keeps the relative error; elsewhere 1 - 2 / (exp(2|x|) + 1) with the sign of x.
inline VF tanh_v(VF x) {
    const VF a = select<float>(x < 0.0f, -x, x);
    const VF s = x * x;
    VF p = fill(-5.70498872745e-3f);
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    p = p * s * x + x;
    const VF far = 1.0f - 2.0f / (exp_v(a + a) + 1.0f);
    const VF away = select<float>(x < 0.0f, -far, far);
    return select<float>(a < 0.625f, p, select<float>(x != x, x, away));
}

template <class T, class F>
inline Vec<T> each(Vec<T> x, F f) {
    for (int i = 0; i < lanes<T>; ++i) x[i] = f(x[i]);
    return x;
}

inline Vec<double> exp_v(Vec<double> x) {
    return each<double>(x, [](double v) { return ::exp(v); });
}
inline Vec<double> tanh_v(Vec<double> x) {
    return each<double>(x, [](double v) { return ::tanh(v); });
}
inline Vec<double> sigmoid_v(Vec<double> x) { return 1.0 / (1.0 + exp_v(-x)); }

template <class T>
inline Vec<T> log_v(Vec<T> x) {
    return each<T>(x, [](T v) { return static_cast<T>(::log(static_cast<double>(v))); });
}
template <class T>
inline Vec<T> sqrt_v(Vec<T> x) {
    return each<T>(x, [](T v) { return static_cast<T>(::sqrt(static_cast<double>(v))); });
}
template <class T>
inline Vec<T> pow_v(Vec<T> x, Vec<T> y) {
    for (int i = 0; i < lanes<T>; ++i)
        x[i] = static_cast<T>(::pow(static_cast<double>(x[i]), static_cast<double>(y[i])));
    return x;
}
template <class T>
inline Vec<T> softplus_v(Vec<T> x) {
    return each<T>(x, [](T v) {
        return v > 20 ? v : static_cast<T>(::log1p(::exp(static_cast<double>(v))));
    });
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
