"""Ways to start the parameters of recurrent layers, beside the default; as in ``torch.nn.init``,
the functions change what they are given in place."""

import math

import torch
from torch import Tensor, nn

from unrolled.cells.declaration import ROTATIONS, parameter_names
from unrolled.nn.base import RecurrentBase
from unrolled.spec import LayerSweep, Spec

__all__ = ["chrono_", "draw", "rotations_"]


def draw(module: nn.Module, spec: Spec, layer: int, suffix: str) -> None:
    """Start one layer's parameters: U(-1/√H, 1/√H), or the range or value that the cell gives."""
    bound = 1.0 / math.sqrt(spec.hidden_size) if spec.hidden_size else 0.0
    for name, parameter in spec.parameters(layer).items():
        tensor = getattr(module, name + suffix)
        if isinstance(parameter.init, str):
            _NAMED[parameter.init](tensor)
        elif isinstance(parameter.init, float | int):
            nn.init.constant_(tensor, parameter.init)
        else:
            nn.init.uniform_(tensor, *(parameter.init or (-bound, bound)))


def chrono_(layer: RecurrentBase, steps: int) -> RecurrentBase:
    """Start the gates so that the state is kept for up to so many steps: chrono initialisation
    ("Can recurrent neural networks warp time?", Tallec & Ollivier 2018).

    b = log u with u from U(1, steps - 1), for each gate that ``keeps`` the cell's state, -b for
    each that ``writes`` it. A unit with that bias forgets within about u steps. A gate with several
    biases gets b in the first, zeros in the others.

    Args:
        layer: a layer or cell of ``unrolled.nn``; all its layers and directions are set.
        steps: of the longest dependency, at least 3.

    Returns:
        The layer.

    Raises:
        TypeError: layer is none of ``unrolled.nn``.
        ValueError: steps is below 3, the layer has no biases, or its cell has no gate that
            keeps or writes the state.
    """
    if not isinstance(layer, RecurrentBase):
        raise TypeError(f"layer: wanted a layer of unrolled.nn, got {type(layer).__name__}")
    cell = layer.cell
    if steps < 3:
        raise ValueError(f"steps: wanted at least 3, got {steps}")
    signs = dict.fromkeys(cell.forget_gates, 1) | dict.fromkeys(cell.input_gates, -1)
    if not signs:
        raise ValueError(
            f"layer: wanted a cell that says which gates keep or write, {type(cell).__name__} "
            "does not"
        )
    with torch.no_grad():
        for sweep in layer.spec.sweeps:
            # One draw: gates that work together are opened and shut alike.
            drawn = torch.empty(layer.spec.hidden_size).uniform_(1, steps - 1).log_()
            for name, sign in signs.items():
                first, *others = _biases(layer, sweep, name)
                first.copy_(sign * drawn)
                for other in others:
                    other.zero_()
    return layer


def _biases(layer: RecurrentBase, sweep: LayerSweep, name: str) -> list[Tensor]:
    """What is added in a gate: the blocks of its products' biases, or a vector of the cell's."""
    if name in layer.cell.vectors:
        found = [(name, 0)]
    else:
        found = [
            (parameter_names(product)[1], told.targets.index(name))
            for product, told in layer.cell.products(sweep.sizes).items()
            if told.bias and name in told.targets
        ]
    # The parameters of a single step's module have no suffix.
    H, suffix = sweep.sizes.H, sweep.suffix if hasattr(layer, f"weight_ih{sweep.suffix}") else ""
    biases = [
        getattr(layer, own + suffix)[block * H : (block + 1) * H]
        for own, block in found
        if hasattr(layer, own + suffix)
    ]
    if not biases:
        raise ValueError(f"layer: wanted one with biases, got none in the gate {name}")
    return biases


def rotations_(weight: Tensor) -> Tensor:
    """Start a square matrix W so that exp(W - Wᵀ) turns pairs of units by angles from U(-π, π), as
    Henaff, Szlam & LeCun (2016) start orthogonal networks: for ``weight_hh`` of
    :class:`unrolled.cells.ExpRNN`. A last unit without a pair stays where it is.

    Returns:
        The matrix.

    Raises:
        ValueError: it is not square.
    """
    if weight.dim() != 2 or weight.shape[0] != weight.shape[1]:
        raise ValueError(f"weight: wanted a square matrix, got shape {list(weight.shape)}")
    nn.init.zeros_(weight)
    with torch.no_grad():
        weight[::2, 1::2].diagonal().uniform_(-math.pi, math.pi)  # elements (2k, 2k + 1)
    return weight


_NAMED = {ROTATIONS: rotations_}
