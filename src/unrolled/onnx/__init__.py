"""ONNX both ways: modules as files of standard operators, and such files as modules.

Needs the package ``onnx``.
"""

try:
    import onnx as _onnx  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "unrolled.onnx needs the package onnx: pip install 'unrolled[onnx]'", name="onnx"
    ) from error

from unrolled.onnx.exporting import export
from unrolled.onnx.importing import ImportedLayer, RefusedError, layers_of, load
from unrolled.onnx.layers import from_node
from unrolled.onnx.torch_table import translation_table

__all__ = [
    "ImportedLayer",
    "RefusedError",
    "export",
    "from_node",
    "layers_of",
    "load",
    "translation_table",
]
