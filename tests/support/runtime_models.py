"""Models for the tests of the runtime: exported and loaded, stepped, and run by the
reference engine.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unrolled import cells, engines
from unrolled.export import export
from unrolled.runtime import Model, load

__all__ = ["PUBLISHED", "exported", "random", "run_reference", "steps"]


PUBLISHED = [
    cell_class
    for name in cells.__all__
    if isinstance(cell_class := getattr(cells, name), type)
    and issubclass(cell_class, cells.Cell)
    and cell_class is not cells.Cell
]


def exported(module: nn.Module, folder: Path, **options: Any) -> Model:
    export(module, folder / "model.safetensors", **options)
    return load(folder / "model.safetensors")


def random(module: nn.Module) -> nn.Module:
    """Every parameter random, those that start at constants too."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.4, 0.4)
    return module


def steps(model: Model, x: np.ndarray, batch: int) -> np.ndarray:
    stream = model.stream(batch)
    return np.stack([stream.step(np.ascontiguousarray(row)) for row in x])


def run_reference(module: nn.Module, x: np.ndarray, *arguments: Any, **options: Any) -> Any:
    """The results of the module on the reference engine."""
    with torch.no_grad(), engines.use("reference"):
        return module(torch.from_numpy(x), *arguments, **options)
