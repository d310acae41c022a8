"""Recurrent neural networks for PyTorch users: a cell is its equations.

``unrolled.cells`` holds the equations, ``unrolled.nn`` the layers. Importing this package loads
neither torch nor numpy; ``unrolled.nn`` and its siblings load when they are first named. Where
torch is loaded already, the operator is registered that files of ``torch.export`` hold.
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "cells",
    "config",
    "diagnostics",
    "engines",
    "export",
    "io",
    "keras",
    "models",
    "nn",
    "onnx",
    "program",
    "runtime",
    "spec",
    "tasks",
    "train",
)


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"unrolled.{name}")
    raise AttributeError(f"module 'unrolled' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_ROOMS]


if sys.modules.get("torch") is not None:
    import_module("unrolled.engines")
