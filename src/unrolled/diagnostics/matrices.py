"""The matrices of a recurrent layer: eigenvalues, singular values, and a table of all parameters.

Numbers only; they are drawn in `pictures`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrolled.cells.declaration import Product
from unrolled.diagnostics.steps import check_layer
from unrolled.nn import Recurrent

__all__ = ["ParameterRow", "RecurrentMatrix", "parameter_table", "recurrent_matrices"]


@dataclass(frozen=True)
class RecurrentMatrix:
    """One block of a product: the rows of one gate, of one layer and direction.

    `product` is its name in the cell (`recurrent` is W_hh), `gate` its target, empty where it has
    none. `singular` [min(W, K)] in falling order; `eigenvalues` [W], complex, the largest first,
    and None where the block is not square (W_hh of a projected layer). All in float64.
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
        return None if self.eigenvalues is None else self.eigenvalues.abs().max().item()


@torch.no_grad()
def recurrent_matrices(layer: Recurrent) -> list[RecurrentMatrix]:
    """Eigenvalues and singular values of the matrices within the recurrence, gate by gate.

    Of the weights as the step uses them, after the cell's `prepare` (W - Wᵀ of an
    AntisymmetricRNN). In a simple network with tanh a largest singular value below 1 is enough for
    gradients to vanish, one above 1 is needed for them to explode; where it is nearly linear, the
    radius says which in the long run (Pascanu, Mikolov & Bengio 2013). In a gated cell they say how
    strongly the state drives that gate.

    A product of the cell's own counts like the recurrent one, whatever it multiplies; the input's
    product and the projection `hr` are left out. A vector that multiplies a state unit by unit is
    not seen here.
    """
    check_layer(layer)
    spec = layer.spec
    found = []
    for place, weights in zip(spec.sweeps, layer.all_weights, strict=True):
        own = dict(zip(spec.parameters(place.layer), weights, strict=True))
        prepared = layer.cell.prepare(own)
        for name, declared in layer.cell.products(place.sizes).items():
            if name in ("input", "hr"):
                continue
            weight = prepared["weight_hh" if name == "recurrent" else f"weight_{name}"]
            for gate, block in _blocks(weight.double().cpu(), declared):
                square = block.shape[0] == block.shape[1]
                found.append(
                    RecurrentMatrix(
                        place.layer,
                        place.reverse,
                        name,
                        gate,
                        torch.linalg.svdvals(block),
                        _eigenvalues(block) if square else None,
                    )
                )
    return found


def _blocks(weight: Tensor, declared: Product) -> Iterator[tuple[str, Tensor]]:
    """The matrix of each target; a block-diagonal one is written out."""
    targets = declared.targets or ("",)
    for gate, rows in zip(targets, weight.chunk(len(targets)), strict=True):
        yield gate, torch.block_diag(*rows.chunk(declared.blocks))


def _eigenvalues(matrix: Tensor) -> Tensor:
    values = torch.linalg.eigvals(matrix)
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
    """All parameters of a module in their order; one that is shared comes once."""
    return [
        ParameterRow(name, tuple(p.shape), p.numel(), p.double().norm().item())
        for name, p in module.named_parameters()
    ]
