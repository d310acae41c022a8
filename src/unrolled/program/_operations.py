"""The operations of a program: name, code, cost, value for numbers, printed form.

Derivatives are in ``_differentiate``. Codes are stable: they are written into files. A new
operation gets a new code, and none is reused.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One pointwise operation or row reduction.

    ``cost`` is its time relative to an addition of vectors in cache (the choice between saving and
    recomputing reads it). ``fold`` evaluates it on numbers. ``text`` is a template over its printed
    arguments, ``rank`` how tightly it binds (higher binds tighter; calls bind tightest).
    """

    name: str
    code: str
    arity: int
    cost: float
    fold: Callable[..., float]
    text: str
    rank: int = 9


def _sigmoid(x: float) -> float:
    return 0.5 * (math.tanh(0.5 * x) + 1)


def _softplus(x: float) -> float:
    return x if x > 20 else math.log1p(math.exp(x))


def _clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


_TABLE = [
    Operation("add", "add", 2, 1, lambda x, y: x + y, "{} + {}", 4),
    Operation("sub", "sub", 2, 1, lambda x, y: x - y, "{} - {}", 4),
    Operation("mul", "mul", 2, 1, lambda x, y: x * y, "{} * {}", 5),
    Operation("div", "div", 2, 4, lambda x, y: x / y, "{} / {}", 5),
    Operation("neg", "neg", 1, 1, lambda x: -x, "-{}", 6),
    Operation("pow", "pow", 2, 20, lambda x, y: x**y, "{} ** {}", 7),
    Operation("exp", "exp", 1, 5, math.exp, "exp({})"),
    Operation("log", "log", 1, 5, math.log, "log({})"),
    Operation("sqrt", "sqr", 1, 4, math.sqrt, "sqrt({})"),
    Operation("sigmoid", "sig", 1, 5, _sigmoid, "sigmoid({})"),
    Operation("tanh", "tnh", 1, 5, math.tanh, "tanh({})"),
    Operation("relu", "rel", 1, 1, lambda x: max(x, 0.0), "relu({})"),
    Operation("softplus", "spl", 1, 16, _softplus, "softplus({})"),
    Operation("softsign", "ssg", 1, 5, lambda x: x / (1 + abs(x)), "softsign({})"),
    Operation("hard_sigmoid", "hsg", 1, 3, lambda x: _clip(x / 6 + 0.5, 0, 1), "hard_sigmoid({})"),
    Operation("hard_tanh", "hth", 1, 2, lambda x: _clip(x, -1, 1), "hard_tanh({})"),
    Operation("abs", "abs", 1, 1, abs, "abs({})"),
    Operation("sign", "sgn", 1, 1, lambda x: float((x > 0) - (x < 0)), "sign({})"),
    Operation("minimum", "min", 2, 1, min, "minimum({}, {})"),
    Operation("maximum", "max", 2, 1, max, "maximum({}, {})"),
    Operation("clip", "clp", 3, 2, _clip, "clip({}, {}, {})"),
    Operation("lt", "ltn", 2, 1, lambda x, y: x < y, "{} < {}", 3),
    Operation("le", "leq", 2, 1, lambda x, y: x <= y, "{} <= {}", 3),
    Operation("eq", "equ", 2, 1, lambda x, y: x == y, "{} == {}", 3),
    Operation("ne", "neq", 2, 1, lambda x, y: x != y, "{} != {}", 3),
    Operation("where", "sel", 3, 1, lambda c, x, y: x if c else y, "where({}, {}, {})"),
    Operation("mean", "avg", 1, 2, lambda x: x, "mean({})"),
    Operation("sum", "sum", 1, 2, lambda x: x, "sum({})"),
]

OPERATIONS = {operation.name: operation for operation in _TABLE}
COMPARISONS = frozenset({"lt", "le", "eq", "ne"})
REDUCTIONS = frozenset({"mean", "sum"})
COMMUTATIVE = frozenset({"add", "mul", "minimum", "maximum", "eq", "ne"})
