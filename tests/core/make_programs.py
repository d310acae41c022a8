"""Writes the programs that ``core_test`` runs: what published cells encode to, and cells that use
what no published one does. ``python tests/core/make_programs.py`` after a change of either.
"""

from pathlib import Path
from typing import Any

from unrolled import cells
from unrolled.cells import Cell, mean, product, sigmoid, tanh, vector
from unrolled.program import make_program
from unrolled.program._encode import encode

FOLDER = Path(__file__).parent / "programs"

PUBLISHED = [
    "RNN",
    "GRU",
    "LSTM",
    "PeepholeLSTM",
    "CoupledLSTM",
    "MultiplicativeLSTM",
    "SLSTM",
    "ResetBeforeGRU",
    "LiGRU",
    "MGU",
    "IndRNN",
    "BRC",
    "NBRC",
    "LEM",
    "CoRNN",
    "FastRNN",
    "FastGRNN",
    "LayerNormGRU",
    "LayerNormLSTM",
]


class DeepTransition(Cell):
    """Two products of intermediate vectors, one of another width."""

    inside = product(width=19)
    outside = product(source=19)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(self.outside(cells.relu(self.inside(x + h))))


class LowRank(Cell):
    """A product straight after a product."""

    recurrent = None
    down = product(width=4, bias=False)
    up = product(source=4)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(x + self.up(self.down(state.h)))


class Fading(Cell):
    """States of different widths."""

    states = ("h", "s")
    widths = {"s": 3}  # noqa: RUF012
    write = product(width=3)
    read = product(source=3)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        out = tanh(x + h + self.read(state.s))
        return out, 0.9 * state.s + 0.1 * self.write(out)


class Narrow(Cell):
    """An output narrower than the other state."""

    gates = ("i", "g")
    states = ("y", "c")
    widths = {"y": 3}  # noqa: RUF012
    out = product(source="H", width=3)
    p = vector()

    def step(self, x: Any, h: Any, state: Any) -> Any:
        i = sigmoid(x.i + h.i + self.p * state.c)
        c = i * state.c + (1 - i) * tanh(x.g + h.g)
        return self.out(c), c


class Means(Cell):
    """Gradients that are one number for a row: of an input block, of products of two widths."""

    gates = ("a", "b")
    narrow = product(width=3)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(x.b + h.b) * (mean(x.a + h.a) + mean(self.narrow(state.h)))


class OneGate(Cell):
    """A gate that all units share, and a state of one number."""

    states = ("h", "s")
    widths = {"s": 1}  # noqa: RUF012
    gate = product(width=1)
    speed = vector(1)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        u = sigmoid(self.gate(state.h) + state.s)
        return u * state.h + (1 - u) * tanh(x + h), self.speed * state.s + u


class Shared(Cell):
    """A number that all units share, without any recurrent product."""

    recurrent = None
    states = ("h", "s")
    widths = {"s": 1}  # noqa: RUF012

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return 0.5 * state.h * state.s + tanh(x), sigmoid(state.s) * 0.9


class Turns(Cell):
    """States that change places, one of them an input as it is; a gate that nothing reads."""

    gates = ("a", "b", "c")
    states = ("h", "c", "d")

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(h.a + state.d), state.h, x.a


class Functions(Cell):
    """Every operation, away from what is not defined."""

    gates = ("a", "b", "c")
    u = vector()

    def step(self, x: Any, h: Any, state: Any) -> Any:
        a, b, c = x.a + h.a, x.b + h.b, x.c + h.c
        positive = 1 + a * a
        smooth = cells.log(positive) + cells.sqrt(positive) - positive**1.5 / cells.exp(b)
        power = positive ** (0.5 * c) + a**2
        bent = cells.softplus(30 * a) / 30 + cells.softsign(b) + abs(c) + cells.hard_tanh(2 * a)
        cut = cells.clip(3 * b, -0.5, 0.75) + cells.hard_sigmoid(9 * c) + cells.relu(-b)
        spread = cells.maximum(a, b) - cells.minimum(b, c) + cells.maximum(a, 0.25)
        chosen = cells.where((a < b) * (b <= c), a * b - c, c - a * self.u)
        return tanh(
            0.2 * (smooth + power + bent + cut + spread + chosen) + 0.1 * cells.sigmoid(h.a)
        )


class Memoryless(Cell):
    """No state is read and nothing but the input is multiplied."""

    gates = ("a", "g")
    recurrent = None

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return sigmoid(x.g) * tanh(x.a)


class SimpleUnit(Cell):
    """The output is not read, the memory is, without a recurrent product (Lei et al. 2018)."""

    gates = ("z", "f", "s")
    states = ("h", "c")
    recurrent = None
    v = vector()

    def step(self, x: Any, h: Any, state: Any) -> Any:
        f = sigmoid(x.f + self.v * state.c)
        c = f * state.c + (1 - f) * x.z
        return f * c + (1 - f) * x.s, c


class InputWide(Cell):
    """A state, a vector and products as wide as the input."""

    states = ("h", "s")
    widths = {"s": "I"}  # noqa: RUF012
    v = vector("I")
    write = product(width="I")
    read = product(source="I")

    def step(self, x: Any, h: Any, state: Any) -> Any:
        s = tanh(self.write(state.h) + self.v * state.s) + mean(state.s)
        return tanh(x + h + self.read(s)), s


class Heads(Cell):
    """Block-diagonal products: blocks of whole vectors, of parts of vectors, of single units, and
    of more columns than rows."""

    states = ("h", "s", "u")
    widths = {"s": 96, "u": 20}  # noqa: RUF012
    whole = product("a", "b", source=96, width=96, blocks=3)
    partial = product("a", "b", "c", source=20, width=20, blocks=2, bias=False)
    single = product(source=20, width=20, blocks=20)
    down = product(source=96, width=20, blocks=4)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        whole, partial = self.whole(state.s), self.partial(state.u)
        s = sigmoid(whole.a) * tanh(whole.b) + 0.5 * mean(h)
        u = tanh(partial.a + self.single(partial.b) + self.down(s)) * sigmoid(partial.c)
        return tanh(x + h) * mean(u), s, u


CELLS = [
    Heads,
    DeepTransition,
    LowRank,
    Fading,
    Narrow,
    Means,
    OneGate,
    Shared,
    Turns,
    Functions,
    Memoryless,
    SimpleUnit,
    InputWide,
]


def texts() -> dict[str, str]:
    """The text of each program, by the name of its file."""
    programs = {name: encode(make_program(getattr(cells, name)())) for name in PUBLISHED}
    programs["LSTM-projected"] = encode(make_program(cells.LSTM(), projected=True))
    programs |= {cell.__name__: encode(make_program(cell())) for cell in CELLS}
    return programs


def main() -> None:
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    main()
