"""Exports modules to ONNX files, and imports ONNX files as modules.

Needs the package ``onnx``.
"""

try:
    import onnx as _onnx  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "unrolled.onnx needs the package onnx: pip install 'unrolled[onnx]'", name="onnx"
    ) from error

from unrolled.onnx._directions import Directions
from unrolled.onnx._exporter.export import export
from unrolled.onnx._exporter.torch_translation import translation_table
from unrolled.onnx._importer.load import ImportedLayer, layers_of, load
from unrolled.onnx._importer.recurrent_node import from_node
from unrolled.onnx._importer.values import RefusedError

__all__ = [
    "Directions",
    "ImportedLayer",
    "RefusedError",
    "export",
    "from_node",
    "layers_of",
    "load",
    "translation_table",
]
