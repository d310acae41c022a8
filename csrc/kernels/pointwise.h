// One pointwise operation over a tile: some rows times some units, in whole vectors.
#pragma once

#include "kernels/functions.h"
#include "kernels/buffer.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Where an operand of a tile lies: row r at p + r * stride; `one` value a row, or all its units.
template <class T>
struct Operand {
    const T* p;
    Index stride;
    bool one;
};

template <class T>
struct Tile {
    T* p;
    Index stride, rows, units;
};

template <class T>
struct Row {
    const T* p;
    Vec<T> value;
    bool one;
    Row(const Operand<T>& a, Index r) : p(a.p + r * a.stride), one(a.one) {
        if (one) value = fill(*p);
    }
    Vec<T> get(Index i) const { return one ? value : load(p + i); }
};

template <class T, class F>
inline void loop1(const Tile<T>& d, const Operand<T>* a, F f) {
    for (Index r = 0; r < d.rows; ++r) {
        const Row<T> x(a[0], r);
        T* to = d.p + r * d.stride;
        if (x.one)
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(x.value));
        else
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(load(x.p + i)));
    }
}

template <class T, class F>
inline void loop2(const Tile<T>& d, const Operand<T>* a, F f) {
    for (Index r = 0; r < d.rows; ++r) {
        const Row<T> x(a[0], r), y(a[1], r);
        T* to = d.p + r * d.stride;
        if (x.one)
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(x.value, y.get(i)));
        else if (y.one)
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(load(x.p + i), y.value));
        else
            for (Index i = 0; i < d.units; i += lanes<T>)
                store(to + i, f(load(x.p + i), load(y.p + i)));
    }
}

template <class T, class F>
inline void loop3(const Tile<T>& d, const Operand<T>* a, F f) {
    for (Index r = 0; r < d.rows; ++r) {
        const Row<T> x(a[0], r), y(a[1], r), z(a[2], r);
        T* to = d.p + r * d.stride;
        if (!x.one && !y.one && !z.one)
            for (Index i = 0; i < d.units; i += lanes<T>)
                store(to + i, f(load(x.p + i), load(y.p + i), load(z.p + i)));
        else
            for (Index i = 0; i < d.units; i += lanes<T>)
                store(to + i, f(x.get(i), y.get(i), z.get(i)));
    }
}

template <class T>
inline Vec<T> truth(Mask<T> m) {
    return select<T>(m, fill(T(1)), Vec<T>{});
}

template <class T>
void execute(int op, const Tile<T>& d, const Operand<T>* a) {
    using V = Vec<T>;
    const V zero{}, unit = fill(T(1));
    switch (op) {
    case 0: loop2(d, a, [](V x, V y) { return x + y; }); break;
    case 1: loop2(d, a, [](V x, V y) { return x - y; }); break;
    case 2: loop2(d, a, [](V x, V y) { return x * y; }); break;
    case 3: loop2(d, a, [](V x, V y) { return x / y; }); break;
    case 4: loop1(d, a, [](V x) { return -x; }); break;
    case 5: loop2(d, a, [](V x, V y) { return pow_v<T>(x, y); }); break;
    case 6: loop1(d, a, [](V x) { return exp_v<T>(x); }); break;
    case 7: loop1(d, a, [](V x) { return log_v<T>(x); }); break;
    case 8: loop1(d, a, [](V x) { return sqrt_v<T>(x); }); break;
    case 9: loop1(d, a, [](V x) { return sigmoid_v<T>(x); }); break;
    case 10: loop1(d, a, [](V x) { return tanh_v<T>(x); }); break;
    case 11: loop1(d, a, [=](V x) { return select<T>(x < zero, zero, x); }); break;
    case 12: loop1(d, a, [](V x) { return softplus_v<T>(x); }); break;
    case 13:
        loop1(d, a, [=](V x) { return x / (unit + select<T>(x < zero, -x, x)); });
        break;
    case 14:
        loop1(d, a, [=](V x) {
            const V y = x / T(6) + T(0.5);
            return select<T>(y < zero, zero, select<T>(y > unit, unit, y));
        });
        break;
    case 15:
        loop1(d, a,
              [=](V x) { return select<T>(x < -unit, -unit, select<T>(x > unit, unit, x)); });
        break;
    case 16: loop1(d, a, [=](V x) { return select<T>(x < zero, -x, x + zero); }); break;
    case 17:
        loop1(d, a, [=](V x) {
            return select<T>(x > zero, unit, select<T>(x < zero, -unit, select<T>(x != x, x, zero)));
        });
        break;
    case 18:
        loop2(d, a, [](V x, V y) {
            return select<T>(x != x, x, select<T>(y < x, y, select<T>(y != y, y, x)));
        });
        break;
    case 19:
        loop2(d, a, [](V x, V y) {
            return select<T>(x != x, x, select<T>(y > x, y, select<T>(y != y, y, x)));
        });
        break;
    case 20:
        loop3(d, a, [](V x, V low, V high) {
            return select<T>(x < low, low, select<T>(x > high, high, x));
        });
        break;
    case 21: loop2(d, a, [](V x, V y) { return truth<T>(x < y); }); break;
    case 22: loop2(d, a, [](V x, V y) { return truth<T>(x <= y); }); break;
    case 23: loop2(d, a, [](V x, V y) { return truth<T>(x == y); }); break;
    case 24: loop2(d, a, [](V x, V y) { return truth<T>(x != y); }); break;
    case 25:
        loop3(d, a, [=](V c, V x, V y) { return select<T>(c != zero, x, y); });
        break;
    case kMultiplyAdd: loop3(d, a, [](V x, V y, V z) { return x * y + z; }); break;
    case kMultiplySubtract: loop3(d, a, [](V x, V y, V z) { return x * y - z; }); break;
    case kSubtractProduct: loop3(d, a, [](V x, V y, V z) { return z - x * y; }); break;
    default: break;
    }
}

// Mean or sum over the units of a row, in rising order by lanes of eight: the same everywhere.
template <class T>
T reduce(const T* p, Index w, bool mean) {
    double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    Index i = 0;
    for (; i + 8 <= w; i += 8)
#pragma GCC unroll 8
        for (int lane = 0; lane < 8; ++lane) sums[lane] += static_cast<double>(p[i + lane]);
    for (int lane = 0; i < w; ++i, ++lane) sums[lane] += static_cast<double>(p[i]);
    double total = 0;
    for (double s : sums) total += s;
    return static_cast<T>(mean ? total / static_cast<double>(w) : total);
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
