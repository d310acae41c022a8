// The operations of a program, in one table: pointwise operations, comparisons and row reductions. A test
// compares it with src/unrolled/program/_operations.py.
#pragma once

#include <cstddef>

namespace unrolled {

// X(name, code in files, number of arguments, kind)
// clang-format off
#define UNROLLED_OPERATIONS(X)               \
    X(add, "add", 2, pointwise)              \
    X(sub, "sub", 2, pointwise)              \
    X(mul, "mul", 2, pointwise)              \
    X(div, "div", 2, pointwise)              \
    X(neg, "neg", 1, pointwise)              \
    X(pow, "pow", 2, pointwise)              \
    X(exp, "exp", 1, pointwise)              \
    X(log, "log", 1, pointwise)              \
    X(sqrt, "sqr", 1, pointwise)             \
    X(sigmoid, "sig", 1, pointwise)          \
    X(tanh, "tnh", 1, pointwise)             \
    X(relu, "rel", 1, pointwise)             \
    X(softplus, "spl", 1, pointwise)         \
    X(softsign, "ssg", 1, pointwise)         \
    X(hard_sigmoid, "hsg", 1, pointwise)     \
    X(hard_tanh, "hth", 1, pointwise)        \
    X(abs, "abs", 1, pointwise)              \
    X(sign, "sgn", 1, pointwise)             \
    X(minimum, "min", 2, pointwise)          \
    X(maximum, "max", 2, pointwise)          \
    X(clip, "clp", 3, pointwise)             \
    X(lt, "ltn", 2, comparison)              \
    X(le, "leq", 2, comparison)              \
    X(eq, "equ", 2, comparison)              \
    X(ne, "neq", 2, comparison)              \
    X(where, "sel", 3, pointwise)            \
    X(mean, "avg", 1, reduction)             \
    X(sum, "sum", 1, reduction)
// clang-format on

enum class Op : int {
#define UNROLLED_NAME_OF(name, code, arity, kind) name,
    UNROLLED_OPERATIONS(UNROLLED_NAME_OF)
#undef UNROLLED_NAME_OF
    // Fused by the schedule, never in a file: x * y + z, x * y - z, z - x * y.
    multiply_add = 100,
    multiply_subtract,
    subtract_product
};

enum class OperationKind { pointwise, comparison, reduction };

struct Operation {
    Op op;
    const char* name;
    const char* code;
    std::size_t arity;
    OperationKind kind;
};

constexpr Operation kOperations[] = {
#define UNROLLED_ENTRY_OF(name, code, arity, kind) {Op::name, #name, code, arity, OperationKind::kind},
    UNROLLED_OPERATIONS(UNROLLED_ENTRY_OF)
#undef UNROLLED_ENTRY_OF
};

// The entry of an operation of a file.
constexpr const Operation& entry_of(Op op) { return kOperations[static_cast<std::size_t>(op)]; }

}  // namespace unrolled
