"""A cell whose step has every operation of programs."""

from typing import Any

from unrolled import cells
from unrolled.cells import Cell, product, vector

__all__ = ["EveryOperation"]


class EveryOperation(Cell):
    """Every operation of programs, states of several widths, and a state that is computed once for
    all sequences."""

    gates = ("a", "b")
    states = ("h", "s", "unit", "constant")
    widths = {"s": 3, "unit": 1}  # noqa: RUF012
    down, up = product(width=3), product("u", "v", source=3, bias=False)
    fixed, twice = product(source=3, width=3), product("p", "q", blocks=5)
    w, k, v = vector(), vector(1), vector(3)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        c = cells
        a, b = x.a + h.a, x.b - h.b
        s = c.tanh(self.down(a)) + self.fixed(c.softsign(self.v))
        up, twice = self.up(s), self.twice(b)
        soft = c.softplus(a) / (2 + c.exp(c.minimum(b, 0.5))) + abs(b) ** 1.5
        hard = c.hard_sigmoid(up.u) * c.hard_tanh(up.v) + c.relu(twice.p) - twice.q
        root = c.sqrt(1 + a * a) + c.log(2 + b * b) + c.clip(b, -0.2, 0.3)
        least = c.maximum(c.minimum(c.maximum(soft, self.k), 0.9), self.w)
        masks = (a < b) * 0.5 + (a <= b) * 1.0 + (a == b) * 1.0 + (a != b) * 0.25
        chosen = c.where(state.s == 0, 0.1, c.where(s > 0, s, -s))
        new = c.sigmoid(hard + root * 0.1 + least + masks) - c.mean(soft) * 0.1
        unit_state = c.mean(state.h) + state.unit * self.k
        constant_state = c.tanh(self.w)
        return new, chosen + s, unit_state, c.where(a < b, constant_state, constant_state)
