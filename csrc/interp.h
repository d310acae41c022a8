// Runs the pointwise part of a phase over tiles: pieces of rows that stay in the first cache.
#pragma once

#include "functions.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Where a node's values are: row r at base + r * stride; one value for all units if `shared`.
template <class T>
struct Place {
    T* base = nullptr;
    Index stride = 0;
    bool shared = false;
    T* at(Index row, Index unit) const { return base + row * stride + (shared ? 0 : unit); }
};

// One operation: its number and the places of what it makes and reads.
struct Instruction {
    int op;
    int made;
    int args[3];
    int count;
};

template <class T>
struct Operand {
    const T* p;
    Vec<T> one;
    bool shared;
    Vec<T> get(Index i) const { return shared ? one : load(p + i); }
};

// f over w units in whole vectors; buffers have room for the last one's tail.
template <class T, class F>
inline void loop1(T* d, Operand<T> a, Index w, F f) {
    for (Index i = 0; i < w; i += lanes<T>) store(d + i, f(a.get(i)));
}

template <class T, class F>
inline void loop2(T* d, Operand<T> a, Operand<T> b, Index w, F f) {
    if (a.shared) {
        for (Index i = 0; i < w; i += lanes<T>) store(d + i, f(a.one, b.get(i)));
    } else if (b.shared) {
        for (Index i = 0; i < w; i += lanes<T>) store(d + i, f(load(a.p + i), b.one));
    } else {
        for (Index i = 0; i < w; i += lanes<T>) store(d + i, f(load(a.p + i), load(b.p + i)));
    }
}

template <class T>
inline Vec<T> truth(Mask<T> m) {
    return select<T>(m, fill(T(1)), Vec<T>{});
}

template <class T>
void execute(int op, T* d, const Operand<T>* a, Index w) {
    using V = Vec<T>;
    const V zero{}, unit = fill(T(1));
    switch (op) {
    case 0: loop2(d, a[0], a[1], w, [](V x, V y) { return x + y; }); break;
    case 1: loop2(d, a[0], a[1], w, [](V x, V y) { return x - y; }); break;
    case 2: loop2(d, a[0], a[1], w, [](V x, V y) { return x * y; }); break;
    case 3: loop2(d, a[0], a[1], w, [](V x, V y) { return x / y; }); break;
    case 4: loop1(d, a[0], w, [](V x) { return -x; }); break;
    case 5: loop2(d, a[0], a[1], w, [](V x, V y) { return pow_v<T>(x, y); }); break;
    case 6: loop1(d, a[0], w, [](V x) { return exp_v(x); }); break;
    case 7: loop1(d, a[0], w, [](V x) { return log_v<T>(x); }); break;
    case 8: loop1(d, a[0], w, [](V x) { return sqrt_v<T>(x); }); break;
    case 9: loop1(d, a[0], w, [](V x) { return sigmoid_v(x); }); break;
    case 10: loop1(d, a[0], w, [](V x) { return tanh_v(x); }); break;
    case 11: loop1(d, a[0], w, [=](V x) { return select<T>(x < zero, zero, x); }); break;
    case 12: loop1(d, a[0], w, [](V x) { return softplus_v<T>(x); }); break;
    case 13:
        loop1(d, a[0], w, [=](V x) { return x / (unit + select<T>(x < zero, -x, x)); });
        break;
    case 14:
        loop1(d, a[0], w, [=](V x) {
            const V y = x / T(6) + T(0.5);
            return select<T>(y < zero, zero, select<T>(y > unit, unit, y));
        });
        break;
    case 15:
        loop1(d, a[0], w,
              [=](V x) { return select<T>(x < -unit, -unit, select<T>(x > unit, unit, x)); });
        break;
    case 16: loop1(d, a[0], w, [=](V x) { return select<T>(x < zero, -x, x + zero); }); break;
    case 17:
        loop1(d, a[0], w, [=](V x) {
            return select<T>(x > zero, unit, select<T>(x < zero, -unit, select<T>(x != x, x, zero)));
        });
        break;
    case 18:
        loop2(d, a[0], a[1], w, [](V x, V y) {
            return select<T>(x != x, x, select<T>(y < x, y, select<T>(y != y, y, x)));
        });
        break;
    case 19:
        loop2(d, a[0], a[1], w, [](V x, V y) {
            return select<T>(x != x, x, select<T>(y > x, y, select<T>(y != y, y, x)));
        });
        break;
    case 20:
        for (Index i = 0; i < w; i += lanes<T>) {
            const V x = a[0].get(i), low = a[1].get(i), high = a[2].get(i);
            store(d + i, select<T>(x < low, low, select<T>(x > high, high, x)));
        }
        break;
    case 21: loop2(d, a[0], a[1], w, [](V x, V y) { return truth<T>(x < y); }); break;
    case 22: loop2(d, a[0], a[1], w, [](V x, V y) { return truth<T>(x <= y); }); break;
    case 23: loop2(d, a[0], a[1], w, [](V x, V y) { return truth<T>(x == y); }); break;
    case 24: loop2(d, a[0], a[1], w, [](V x, V y) { return truth<T>(x != y); }); break;
    case 25:
        for (Index i = 0; i < w; i += lanes<T>)
            store(d + i, select<T>(a[0].get(i) != zero, a[1].get(i), a[2].get(i)));
        break;
    default: break;
    }
}

// One operation over w units: whole vectors in place, the rest through buffers of one vector, so
// that nothing beyond w is read or written.
template <class T>
void execute_tile(int op, T* d, const Operand<T>* a, int count, Index w) {
    const Index whole = w / lanes<T> * lanes<T>, rest = w - whole;
    if (whole > 0) execute<T>(op, d, a, whole);
    if (rest == 0) return;
    T tails[4][lanes<T>] = {};
    Operand<T> b[3];
    for (int k = 0; k < count; ++k) {
        b[k] = a[k];
        if (a[k].shared) continue;
        std::memcpy(tails[k], a[k].p + whole, rest * sizeof(T));
        b[k].p = tails[k];
    }
    execute<T>(op, tails[3], b, lanes<T>);
    std::memcpy(d + whole, tails[3], rest * sizeof(T));
}

// Mean or sum over the units of a row, in rising order by lanes of eight: the same everywhere.
template <class T>
T reduce(const T* p, Index w, bool mean) {
    double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (Index i = 0; i < w; ++i) sums[i % 8] += static_cast<double>(p[i]);
    double total = 0;
    for (double s : sums) total += s;
    return static_cast<T>(mean ? total / static_cast<double>(w) : total);
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
