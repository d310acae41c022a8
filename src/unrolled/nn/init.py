"""Initialisations of recurrent layers; as in ``torch.nn.init``, functions whose names end in ``_``
change their argument in place."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from unrolled._spec import LayerSweep, Spec
from unrolled.cells._declaration import ROTATIONS, parameter_names
from unrolled.nn._base import RecurrentBase

__all__ = ["chrono_", "rotations_"]

Layer = TypeVar("Layer", bound=RecurrentBase)


def init_parameters(module: nn.Module, spec: Spec, layer: int, suffix: str) -> None:
    """Initialise one layer: U(-1/√H, 1/√H), or the range or value that the cell declares."""
    bound = 1.0 / math.sqrt(spec.hidden_size) if spec.hidden_size else 0.0
    for name, parameter in spec.parameters(layer).items():
        tensor = getattr(module, name + suffix)
        if isinstance(parameter.init, str):
            _NAMED[parameter.init](tensor)
        elif isinstance(parameter.init, float | int):
            nn.init.constant_(tensor, parameter.init)
        else:
            nn.init.uniform_(tensor, *(parameter.init or (-bound, bound)))


def chrono_(layer: Layer, steps: int) -> Layer:
    """Initialise the gates so that the state is remembered for up to ``steps`` steps: chrono
    initialisation ("Can recurrent neural networks warp time?", Tallec & Ollivier 2018).

    b = log u with u from U(1, steps - 1), for each of the cell's ``forget_gates``, -b for each of
    its ``input_gates``. A unit with that bias forgets within about u steps. A gate with several
    biases gets b in the first, zeros in the others.

    Args:
        layer: a layer or cell of ``unrolled.nn``; all its layers and directions are set.
        steps: the length of the longest dependency, at least 3.

    Returns:
        The layer.

    Raises:
        TypeError: layer is not from ``unrolled.nn``.
        ValueError: steps is below 3, the layer has no biases, or its cell declares neither
            ``forget_gates`` nor ``input_gates``.
    """
    if not isinstance(layer, RecurrentBase):
        raise TypeError(
            f"chrono_: layer must be a layer of unrolled.nn, got {type(layer).__name__}"
        )
    cell = layer.cell
    if steps < 3:
        raise ValueError(f"chrono_: steps must be at least 3, got {steps}")
    signs = dict.fromkeys(cell.forget_gates, 1) | dict.fromkeys(cell.input_gates, -1)
    if not signs:
        raise ValueError(
            "chrono_: layer must have a cell with forget_gates or input_gates, got "
            f"{type(cell).__name__}"
        )
    with torch.no_grad():
        for sweep in layer.spec.sweeps:
            # Drawn once, so that gates that work together open and close together.
            log_u = torch.empty(layer.spec.hidden_size).uniform_(1, steps - 1).log_()
            for name, sign in signs.items():
                bias, *further_biases = _biases(layer, sweep, name)
                bias.copy_(sign * log_u)
                for further_bias in further_biases:
                    further_bias.zero_()
    return layer


def _biases(layer: RecurrentBase, sweep: LayerSweep, gate: str) -> list[Tensor]:
    """The biases of a gate: blocks of its products' biases, or a vector of the cell."""
    if gate in layer.cell.vectors:
        blocks = [(gate, 0)]
    else:
        blocks = [
            (parameter_names(name)[1], product.targets.index(gate))
            for name, product in layer.cell.products(sweep.sizes).items()
            if product.bias and gate in product.targets
        ]
    # The parameters of a single step's module have no suffix.
    H, suffix = sweep.sizes.H, sweep.suffix if hasattr(layer, f"weight_ih{sweep.suffix}") else ""
    biases = [
        getattr(layer, name + suffix)[block * H : (block + 1) * H]
        for name, block in blocks
        if hasattr(layer, name + suffix)
    ]
    if not biases:
        raise ValueError(f"chrono_: layer must have biases, got none in the gate {gate}")
    return biases


def rotations_(weight: Tensor) -> Tensor:
    """Initialise a square matrix W so that exp(W - Wᵀ) rotates pairs of units by angles from
    U(-π, π), as Henaff, Szlam & LeCun (2016) initialise orthogonal networks: for ``weight_hh`` of
    :class:`unrolled.cells.ExpRNN`. A unit without a pair is not rotated.

    Returns:
        The matrix.

    Raises:
        ValueError: the matrix is not square.
    """
    if weight.dim() != 2 or weight.shape[0] != weight.shape[1]:
        raise ValueError(f"rotations_: weight must be square, got shape {list(weight.shape)}")
    nn.init.zeros_(weight)
    with torch.no_grad():
        weight[::2, 1::2].diagonal().uniform_(-math.pi, math.pi)  # elements (2k, 2k + 1)
    return weight


_NAMED = {ROTATIONS: rotations_}
