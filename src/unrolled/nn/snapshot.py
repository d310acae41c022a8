"""A layer as the runtime has it: programs and arrays, without torch."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import Sizes
from unrolled.cells.declaration import parameter_names
from unrolled.engines.native.programs import recorded, refusal, split_products, whole_weight
from unrolled.runtime.schema import FloatArray, LayerDirection, RecurrentBlock

if TYPE_CHECKING:
    from unrolled.nn.recurrent import Recurrent

__all__ = ["ExportError", "array_of", "describe_layer", "described_dtype"]

described_dtype: ContextVar[torch.dtype] = ContextVar("described dtype", default=torch.float32)
"""What parameters must have; the runtime's arithmetic is float32."""


class ExportError(ValueError):
    """A module has a part that the runtime does not know; the message names it."""


@torch.no_grad()
def describe_layer(module: "Recurrent", where: str) -> RecurrentBlock:
    """A layer in the schema of exported files, with copies of the parameters.

    Raises:
        ExportError: the runtime cannot run the layer.
    """
    spec = module.spec
    layers: list[list[LayerDirection]] = [[] for _ in range(spec.num_layers)]
    for sweep in spec.sweeps:
        parameters = {
            name: _parameter(module, name + sweep.suffix, p.shape, where)
            for name, p in spec.parameters(sweep.layer).items()
        }
        layers[sweep.layer].append(_direction(module, sweep.sizes, parameters, where))
    return RecurrentBlock(
        tuple(map(tuple, layers)),
        states=tuple(module.cell.states),
        merge="sum" if spec.merge == "sum" and spec.bidirectional else "concat",
    )


def _parameter(module: "Recurrent", name: str, shape: tuple[int, ...], where: str) -> Tensor:
    """Users may replace parameters: an empty bias would be read as none."""
    found: Tensor | None = getattr(module, name)
    if found is None or found.shape != shape:
        got = None if found is None else list(found.shape)
        raise ExportError(f"{where}: {name} must have shape {list(shape)}, got {got}")
    return found.detach().cpu()


def _direction(
    module: "Recurrent", sizes: Sizes, parameters: dict[str, Tensor], where: str
) -> LayerDirection:
    cell = module.cell
    why = refusal(cell, sizes)
    if why is not None:
        raise ExportError(f"{where}: has no program: {why}")
    prepared = cell.prepare(parameters)
    for name, parts, blocks in split_products(cell, sizes):
        prepared = {**prepared, name: whole_weight(prepared[name], parts, blocks)}
    found = recorded(cell, sizes.projected)
    names = [name for key in found.products for name in parameter_names(key)]
    arrays = tuple(
        array_of(prepared[name], where) if name in prepared else None
        for name in (*names, *cell.vectors)
    )
    widths = (sizes.I, sizes.H, cell.state_widths(sizes)[0])  # only a projection reads P
    return LayerDirection(type(cell).__name__, found.text, widths, arrays)


def array_of(tensor: Tensor, where: str) -> FloatArray:
    """A copy of a tensor in float32, or in ``described_dtype``."""
    wanted = described_dtype.get()
    if tensor.dtype != wanted:
        name = str(wanted).removeprefix("torch.")
        call = {"float32": "float", "float64": "double"}[name]
        raise ExportError(f"{where}: wanted {name}, got {tensor.dtype}; call .{call}() first")
    return np.array(tensor.detach().cpu().numpy(), order="C")
