"""The immutable description of a recurrent network: cell, sizes, layers, directions, and the names
and shapes of its parameters."""

from dataclasses import dataclass, field
from functools import cached_property

from unrolled.cells import Cell, CellError, ParameterSpec, Sizes

MERGES = ("concat", "sum")


@dataclass(frozen=True)
class LayerSweep:
    """One layer in one direction; the names of its parameters end in ``suffix``."""

    layer: int
    reverse: bool
    suffix: str
    sizes: Sizes


@dataclass(frozen=True)
class Spec:
    """A stack of L layers of one cell, in D directions. The caller checks the sizes.

    Raises:
        CellError: a state's width differs from layer to layer.
    """

    cell: Cell
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    proj_size: int = 0
    merge: str = "concat"
    state_widths: tuple[int, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state_widths", self.cell.state_widths(self.sizes(0)))
        self._check_widths()

    def _check_widths(self) -> None:
        """The states of all layers are one tensor: a width I must be equal in all of them."""
        if self.num_layers < 2:
            return
        inner = self.cell.state_widths(self.sizes(1))
        widths = zip(self.cell.states, self.state_widths, inner, strict=True)
        for state, input_layer_width, inner_width in widths:
            if input_layer_width != inner_width:
                raise CellError(
                    f"cell {type(self.cell).__name__}: state {state!r} must have one width in all "
                    f"layers, got {input_layer_width} units in the first and {inner_width} in the "
                    f"others; its width follows the layer's input, so num_layers must be 1, or "
                    f"input_size {self.output_size}"
                )

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Width of a layer's output, with both directions merged."""
        width = self.cell.state_widths(self.sizes(0))[0]
        return width * (self.num_directions if self.merge == "concat" else 1)

    def sizes(self, layer: int) -> Sizes:
        """The letters of one layer; from the second on, I is the output size of the one below."""
        P = self.proj_size or self.hidden_size
        return Sizes(self.input_size if layer == 0 else self.output_size, self.hidden_size, P)

    def parameters(self, layer: int) -> dict[str, ParameterSpec]:
        """Shapes of one layer and direction by plain name (``weight_ih``)."""
        return self.cell.parameters(self.sizes(layer), self.bias)

    @cached_property
    def sweeps(self) -> tuple["LayerSweep", ...]:
        """Each layer in each direction, in the order of states."""
        return tuple(
            LayerSweep(layer, reverse, f"_l{layer}" + "_reverse" * reverse, self.sizes(layer))
            for layer in range(self.num_layers)
            for reverse in (False, True)[: self.num_directions]
        )
