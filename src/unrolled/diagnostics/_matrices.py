"""The matrices of a recurrent layer: eigenvalues, singular values, and a table of all parameters.

Computes numbers only; `_pictures` draws them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells._declaration import Product
from unrolled.diagnostics._steps import check_layer
from unrolled.nn import Recurrent


@dataclass(frozen=True)
class RecurrentMatrix:
    """The rows of one gate in a weight matrix, of one layer and direction.

    `product` is the name of the product in the cell (`recurrent` is W_hh), `gate` its target, empty
    if it has none. `singular` [min(W, K)] are the singular values in falling order; `eigenvalues`
    [W], complex, by falling absolute value, are None if the matrix is not square (W_hh of a
    projected layer). All in float64.
    """

    layer: int
    reverse: bool
    product: str
    gate: str
    singular: Tensor
    eigenvalues: Tensor | None

    @property
    def radius(self) -> float | None:
        """The spectral radius, the largest |eigenvalue|."""
        return None if self.eigenvalues is None else float(self.eigenvalues.abs().max())


@torch.no_grad()
def recurrent_matrices(layer: Recurrent) -> list[RecurrentMatrix]:
    """Eigenvalues and singular values of the recurrent matrices, separately for each gate.

    The weights are those that the step uses, after the cell's `prepare` (W - Wᵀ of an
    AntisymmetricRNN). In a simple network with tanh, gradients vanish if the largest singular value
    is below 1, and can explode only if it is above 1; if the network is nearly linear, the spectral
    radius decides in the long run (Pascanu, Mikolov & Bengio 2013). In a gated cell they measure
    how strongly the state drives that gate.

    Additional products of a cell are included; the input's product and the projection `hr` are not,
    nor are vectors that multiply a state element by element.
    """
    check_layer(layer)
    spec = layer.spec
    matrices = []
    for sweep, weights in zip(spec.sweeps, layer.all_weights, strict=True):
        prepared = layer.cell.prepare(dict(zip(spec.parameters(sweep.layer), weights, strict=True)))
        for name, declared in layer.cell.products(sweep.sizes).items():
            if name in ("input", "hr"):
                continue
            weight = prepared["weight_hh" if name == "recurrent" else f"weight_{name}"]
            for gate, block in _blocks(weight.double().cpu(), declared):
                square = block.shape[0] == block.shape[1]
                matrices.append(
                    RecurrentMatrix(
                        sweep.layer,
                        sweep.reverse,
                        name,
                        gate,
                        torch.linalg.svdvals(block),
                        _eigenvalues(block) if square else None,
                    )
                )
    return matrices


def _blocks(weight: Tensor, declared: Product[Any]) -> Iterator[tuple[str, Tensor]]:
    """The matrix of each target; a block-diagonal matrix is expanded."""
    targets = declared.targets or ("",)
    for gate, rows in zip(targets, weight.chunk(len(targets)), strict=True):
        block: Tensor = torch.block_diag(*rows.chunk(declared.blocks))
        yield gate, block


def _eigenvalues(matrix: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvals(matrix)
    return values[values.abs().argsort(descending=True)]


@dataclass(frozen=True)
class ParameterRow:
    """One parameter: its full name, shape, number of elements and Euclidean norm."""

    name: str
    shape: tuple[int, ...]
    count: int
    norm: float


@torch.no_grad()
def parameter_table(module: nn.Module) -> list[ParameterRow]:
    """All parameters of a module in order; shared ones are listed once."""
    return [
        ParameterRow(name, tuple(p.shape), p.numel(), p.double().norm().item())
        for name, p in module.named_parameters()
    ]
