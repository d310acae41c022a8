"""Cells with block-diagonal products."""

from typing import Any

from unrolled.cells import LSTM, Cell, product, sigmoid, tanh, vector

__all__ = ["Heads", "HeadsLSTM", "VectorHeads"]


class Heads(Cell):
    """Products of a state and of an intermediate vector, some added to the input product, some not;
    the gradient of one part is zero."""

    gates = ("r", "z", "n", "q")

    def __init__(self, blocks: int = 1, input_blocks: int = 1) -> None:
        self.input = product("r", "z", "n", "q", blocks=input_blocks)
        self.recurrent = product("r", "z", "n", "q", blocks=blocks)
        self.inner = product("a", "b", bias=False, blocks=blocks)
        self.down = product(width=24, blocks=min(blocks, 4))
        self.up = product(source=24, blocks=min(blocks, 4))

    def step(self, x: Any, h: Any, state: Any) -> Any:
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        inner = self.inner(r * state.h)
        n = tanh(x.n + r * h.n + inner.a)
        return (1 - z) * n + z * state.h * sigmoid(inner.b) + 0.1 * self.up(self.down(n))


class HeadsLSTM(LSTM):
    """The LSTM with blocks in its recurrent matrix."""

    def __init__(self, blocks: int = 1) -> None:
        self.recurrent = product(*self.gates, blocks=blocks)


class VectorHeads(Cell):
    """A product of a parameter, which is the same for all sequences."""

    gates = ("n",)

    def __init__(self, blocks: int = 1) -> None:
        self.offset = vector()
        self.mixed = product("a", "b", blocks=blocks)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        mixed = self.mixed(sigmoid(self.offset))
        return tanh(x.n + h.n + mixed.a) * mixed.b
