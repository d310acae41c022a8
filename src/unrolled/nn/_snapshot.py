"""Describes a layer for the runtime: programs and arrays, without torch."""

import numpy as np
import torch
from torch import Tensor

from unrolled.nn._base import RecurrentBase
from unrolled.runtime._schema import FloatArray, LayerDirection, RecurrentBlock


class ExportError(ValueError):
    """A module cannot be exported; the message says which part, and why."""


@torch.no_grad()
def describe_layer(
    module: RecurrentBase, path: str, dtype: torch.dtype = torch.float32
) -> RecurrentBlock:
    """A layer in the schema of exported files, with copies of the parameters.

    Args:
        path: the path of the module, for messages.
        dtype: the dtype of all parameters; the runtime computes in float32.

    Raises:
        ExportError: the layer has no program, or another dtype.
    """
    spec = module.spec
    layers: list[list[LayerDirection]] = [[] for _ in range(spec.num_layers)]
    for index, sweep in enumerate(spec.sweeps):
        parameters = {
            name: _parameter(module, name + sweep.suffix, p.shape, path)
            for name, p in spec.parameters(sweep.layer).items()
        }
        layers[sweep.layer].append(_direction(module, index, parameters, path, dtype))
    return RecurrentBlock(
        tuple(map(tuple, layers)),
        states=tuple(spec.cell.states),
        merge="sum" if spec.merge == "sum" and spec.bidirectional else "concat",
    )


def _parameter(module: RecurrentBase, name: str, shape: tuple[int, ...], path: str) -> Tensor:
    """A parameter, after checking its shape: users may have replaced it."""
    parameter: Tensor | None = getattr(module, name)
    if parameter is None or parameter.shape != shape:
        got = None if parameter is None else list(parameter.shape)
        raise ExportError(f"{path}: {name} must have shape {list(shape)}, got {got}")
    return parameter.detach().cpu()


def _direction(
    module: RecurrentBase,
    index: int,
    parameters: dict[str, Tensor],
    path: str,
    dtype: torch.dtype,
) -> LayerDirection:
    cell, sizes = module.spec.cell, module.spec.sweeps[index].sizes
    export = module._runner.export_sweep(index, parameters)
    if isinstance(export, str):
        raise ExportError(f"{path}: cell must have a program, got none: {export}")
    arrays = tuple(None if a is None else array_of(a, path, dtype) for a in export.arrays)
    widths = (sizes.I, sizes.H, cell.state_widths(sizes)[0])  # only a projection reads P
    return LayerDirection(type(cell).__name__, export.program, widths, arrays)


def array_of(tensor: Tensor, path: str, dtype: torch.dtype) -> FloatArray:
    """A copy of a tensor, which must have this dtype, float32 or float64."""
    if tensor.dtype != dtype:
        cast = "double" if dtype == torch.float64 else "float"
        raise ExportError(
            f"{path}: parameters must be {dtype}, got {tensor.dtype}; call .{cast}() first"
        )
    return np.array(tensor.detach().cpu().numpy(), order="C")
