"""Recognizes products with block-diagonal weights, as our exporter writes them.

They are six nodes: Reshape and Transpose give each block its columns, MatMul multiplies all blocks
at once, Reshape, Transpose and Reshape give each part its units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OPERATORS = ("Reshape", "Transpose", "MatMul", "Reshape", "Transpose", "Reshape")


@dataclass(frozen=True)
class BlockProduct:
    """A weight [parts * width, K / blocks]."""

    weight: np.ndarray
    parts: int
    blocks: int


@dataclass(frozen=True)
class Chain:
    """The first of the six nodes: the name of what they read, and the argument of each, which is
    sizes, a permutation or weights."""

    source: str
    arguments: tuple[np.ndarray, ...] = ()

    def extended(self, op_type: str, argument: np.ndarray | Sequence[int]) -> "Chain | None":
        """With one more node, or None if that is another operator."""
        number = len(self.arguments)
        if number == len(OPERATORS) or OPERATORS[number] != op_type:
            return None
        return Chain(self.source, (*self.arguments, np.asarray(argument)))

    @property
    def is_complete(self) -> bool:
        """Whether it has all six nodes."""
        return len(self.arguments) == len(OPERATORS)

    def product(self, rank: int) -> BlockProduct | None:
        """The product of an array with ``rank`` axes, or None if the nodes compute another one."""
        weight, separated_parts = self.arguments[2:4]
        if weight.ndim != rank + 1 or separated_parts.shape != (rank + 2,):
            return None
        blocks, *ones, columns, width = weight.shape
        parts = int(separated_parts[-2])
        if any(size != 1 for size in ones) or parts < 1 or width % parts:
            return None
        rows, axes, same = width // parts, [*range(rank - 1)], [0] * (rank - 1)
        expected = {
            0: [*same, blocks, columns],
            1: [rank - 1, *axes, rank],
            3: [blocks, *same, parts, rows],
            4: [*range(1, rank + 1), 0, rank + 1],
            5: [*same, blocks * width],
        }
        if not all(np.array_equal(self.arguments[k], value) for k, value in expected.items()):
            return None
        separate = weight.reshape(blocks, columns, parts, rows).transpose(2, 0, 3, 1)
        return BlockProduct(separate.reshape(blocks * width, columns), parts, blocks)
