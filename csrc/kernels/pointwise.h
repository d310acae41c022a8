// One pointwise operation on a tile: rows times units, in whole vectors.
#pragma once

#include "kernels/buffer.h"
#include "kernels/functions.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// An operand of a tile: row r at p + r * stride; scalar: one value a row.
template <class T>
struct Operand {
    const T* p;
    Index stride;
    bool scalar;
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
    bool scalar;
    Row(const Operand<T>& a, Index r) : p(a.p + r * a.stride), scalar(a.scalar) {
        if (scalar) value = broadcast(*p);
    }
    Vec<T> get(Index i) const { return scalar ? value : load(p + i); }
};

template <class T, class F>
inline void loop1(const Tile<T>& d, const Operand<T>* a, F f) {
    for (Index r = 0; r < d.rows; ++r) {
        const Row<T> x(a[0], r);
        T* to = d.p + r * d.stride;
        if (x.scalar)
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
        if (x.scalar)
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(x.value, y.get(i)));
        else if (y.scalar)
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(load(x.p + i), y.value));
        else
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(load(x.p + i), load(y.p + i)));
    }
}

template <class T, class F>
inline void loop3(const Tile<T>& d, const Operand<T>* a, F f) {
    for (Index r = 0; r < d.rows; ++r) {
        const Row<T> x(a[0], r), y(a[1], r), z(a[2], r);
        T* to = d.p + r * d.stride;
        if (!x.scalar && !y.scalar && !z.scalar)
            for (Index i = 0; i < d.units; i += lanes<T>)
                store(to + i, f(load(x.p + i), load(y.p + i), load(z.p + i)));
        else
            for (Index i = 0; i < d.units; i += lanes<T>) store(to + i, f(x.get(i), y.get(i), z.get(i)));
    }
}

template <class T>
inline Vec<T> as_number(Mask<T> m) {
    return select<T>(m, broadcast(T(1)), Vec<T>{});
}

template <class T>
void execute(Op op, const Tile<T>& d, const Operand<T>* a) {
    using V = Vec<T>;
    const V zero{}, unit = broadcast(T(1));
    switch (op) {
    case Op::add: loop2(d, a, [](V x, V y) { return x + y; }); break;
    case Op::sub: loop2(d, a, [](V x, V y) { return x - y; }); break;
    case Op::mul: loop2(d, a, [](V x, V y) { return x * y; }); break;
    case Op::div: loop2(d, a, [](V x, V y) { return x / y; }); break;
    case Op::neg: loop1(d, a, [](V x) { return -x; }); break;
    case Op::pow: loop2(d, a, [](V x, V y) { return pow_v<T>(x, y); }); break;
    case Op::exp: loop1(d, a, [](V x) { return exp_v<T>(x); }); break;
    case Op::log: loop1(d, a, [](V x) { return log_v<T>(x); }); break;
    case Op::sqrt: loop1(d, a, [](V x) { return sqrt_v<T>(x); }); break;
    case Op::sigmoid: loop1(d, a, [](V x) { return sigmoid_v<T>(x); }); break;
    case Op::tanh: loop1(d, a, [](V x) { return tanh_v<T>(x); }); break;
    case Op::relu: loop1(d, a, [=](V x) { return select<T>(x < zero, zero, x); }); break;
    case Op::softplus: loop1(d, a, [](V x) { return softplus_v<T>(x); }); break;
    case Op::softsign: loop1(d, a, [=](V x) { return x / (unit + select<T>(x < zero, -x, x)); }); break;
    case Op::hard_sigmoid:
        loop1(d, a, [=](V x) {
            const V y = x / T(6) + T(0.5);
            return select<T>(y < zero, zero, select<T>(y > unit, unit, y));
        });
        break;
    case Op::hard_tanh:
        loop1(d, a, [=](V x) { return select<T>(x < -unit, -unit, select<T>(x > unit, unit, x)); });
        break;
    case Op::abs: loop1(d, a, [=](V x) { return select<T>(x < zero, -x, x + zero); }); break;
    case Op::sign:
        loop1(d, a, [=](V x) {
            return select<T>(x > zero, unit, select<T>(x < zero, -unit, select<T>(x != x, x, zero)));
        });
        break;
    case Op::minimum:
        loop2(d, a,
              [](V x, V y) { return select<T>(x != x, x, select<T>(y < x, y, select<T>(y != y, y, x))); });
        break;
    case Op::maximum:
        loop2(d, a,
              [](V x, V y) { return select<T>(x != x, x, select<T>(y > x, y, select<T>(y != y, y, x))); });
        break;
    case Op::clip:
        loop3(d, a, [](V x, V low, V high) { return select<T>(x < low, low, select<T>(x > high, high, x)); });
        break;
    case Op::lt: loop2(d, a, [](V x, V y) { return as_number<T>(x < y); }); break;
    case Op::le: loop2(d, a, [](V x, V y) { return as_number<T>(x <= y); }); break;
    case Op::eq: loop2(d, a, [](V x, V y) { return as_number<T>(x == y); }); break;
    case Op::ne: loop2(d, a, [](V x, V y) { return as_number<T>(x != y); }); break;
    case Op::where: loop3(d, a, [=](V c, V x, V y) { return select<T>(c != zero, x, y); }); break;
    case Op::multiply_add: loop3(d, a, [](V x, V y, V z) { return x * y + z; }); break;
    case Op::multiply_subtract: loop3(d, a, [](V x, V y, V z) { return x * y - z; }); break;
    case Op::subtract_product: loop3(d, a, [](V x, V y, V z) { return z - x * y; }); break;
    default: break;
    }
}

// Mean or sum over the units of a row, in eight partial sums: the same on every build.
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
