"""One layer in one direction, as it is read by the functions that create nodes."""

from dataclasses import dataclass

from unrolled.onnx._exporter.graph import Value
from unrolled.program._decode import Forward


@dataclass(frozen=True)
class Sweep:
    """One layer in one direction.

    ``forward`` is the cell's program; ``matrices`` are weight and bias (or None) of the input
    product and of each further product, in the order of the program; ``vectors`` are those of the
    cell; ``name`` is the prefix of the arrays' names.
    """

    forward: Forward
    I: int  # noqa: E741
    H: int
    P: int
    reverse: bool
    matrices: tuple[Value | None, ...]
    vectors: tuple[Value, ...]
    name: str = "layer"

    def width(self, size: int | str) -> int:
        """A width of the program as a number."""
        return size if isinstance(size, int) else {"I": self.I, "H": self.H, "P": self.P}[size]

    @property
    def state_widths(self) -> list[int]:
        """The widths of the states."""
        return [self.width(size) for size in self.forward.states]

    @property
    def is_block_diagonal(self) -> bool:
        """Whether a product has blocks."""
        matrices = (self.forward.input, *self.forward.products)
        return any(matrix.blocks > 1 for matrix in matrices)
