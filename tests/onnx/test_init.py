"""The public names of the packages that convert weights and models of other libraries."""

from unrolled import keras, onnx
from unrolled.onnx import _directions as directions
from unrolled.onnx import backend


def test_public_names() -> None:
    assert sorted(onnx.__all__) == [
        "Directions",
        "ImportedLayer",
        "RefusedError",
        "export",
        "from_node",
        "layers_of",
        "load",
        "translation_table",
    ]
    assert sorted(backend.__all__) == ["Backend", "Prepared"]
    assert directions.__all__ == ["Directions"]
    assert sorted(keras.__all__) == ["from_keras", "to_keras"]
    for module in (onnx, backend, directions, keras):
        assert all(hasattr(module, name) for name in module.__all__)
