"""The values of names in an ONNX graph while the graph is imported."""

from dataclasses import dataclass

import numpy as np
from torch import fx, nn


class RefusedError(ValueError):
    """A node cannot become part of a module; the message names the node."""


@dataclass(frozen=True)
class LayerOutput:
    """The outputs of a layer as the operators give them, with an axis of D directions.

    ``merged`` is the layer's own output [T, N, D·H], with T and N exchanged if ``swapped``.
    ``directions_last`` says whether D and H are the last two axes, [T, N, D, H], as they are after
    the usual Transpose; else the output is [T, D, N, H].
    """

    merged: fx.Node
    D: int
    H: int
    swapped: bool
    directions_last: bool


@dataclass(frozen=True)
class Value:
    """A value of the graph: a node of the module, a constant, or the reason why it is neither.

    Further fields keep the module's graph plain:

    - ``array``: the numbers of a constant.
    - ``fill``: the number that all elements are equal to, whatever the shape.
    - ``swapped``: ``node`` has the first two axes exchanged.
    - ``unexpanded``: the value before it was expanded over the batch.
    - ``layer_output``: the layer whose outputs it is.
    - ``is_single_state``: it is the only row of a layer's final state, [1, N, H].
    - ``state_rows``: the rows, each such a state, of which it is the concatenation.
    - ``open_linear``: the linear layer whose product it is, and which may still get a bias.
    - ``unsqueezed``: the state [1, N, H] whose row it is.
    - ``is_range``: it is 0, 1, 2, …
    - ``lengths``: for a mask of steps below lengths, these lengths.
    - ``error``: why there is no node.
    """

    node: fx.Node | None = None
    array: np.ndarray | None = None
    fill: float | None = None
    swapped: bool = False
    unexpanded: "Value | None" = None
    layer_output: LayerOutput | None = None
    is_single_state: bool = False
    state_rows: "tuple[Value, ...]" = ()
    open_linear: nn.Linear | None = None
    unsqueezed: "Value | None" = None
    is_range: bool = False
    lengths: fx.Node | None = None
    error: str | None = None
