"""OpenVINO and tract behind the interface of an ONNX Runtime session, as the tests call it."""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest

from tests.support.onnx_files import session

try:
    import tract
except ModuleNotFoundError:
    if (
        sys.platform != "linux" or platform.machine() == "x86_64"
    ):  # where pyproject.toml asks for it
        raise
    tract = None

__all__ = ["RUNTIMES", "OpenVINO", "Tract"]

# Not one for each model: of several, dropped in the order of their making, the last one restores
# a signal stack that is freed (findings/openvino_leaves_a_signal_stack_behind.sh).
_OPENVINO = openvino.Core()


class OpenVINO:
    """A file in OpenVINO, in float32 also on processors where it would take bfloat16."""

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        model = _OPENVINO.read_model(path)
        if shapes is not None:
            model.reshape(dict(shapes))
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self._model = _OPENVINO.compile_model(model, "CPU", options)

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs = self._model(dict(feed))
        return [outputs[name] for name in names]


class Tract:
    """A file in tract."""

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        model = tract.onnx().load(str(path))
        self._inputs = [model.input_name(k) for k in range(model.input_count())]
        # Its own names of outputs are those of nodes; the order is the file's.
        self._outputs = [output.name for output in onnx.load(path).graph.output]
        for k, name in enumerate(self._inputs if shapes is not None else ()):
            dimensions = ",".join(map(str, shapes[name]))  # type: ignore[index]
            model.set_input_fact(k, f"{dimensions},{'i64' if name == 'lengths' else 'f32'}")
        self._model = model.into_model().into_runnable()

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs = self._model.run([np.ascontiguousarray(feed[name]) for name in self._inputs])
        return [outputs[self._outputs.index(name)].to_numpy() for name in names]


RUNTIMES: list[Any] = [
    pytest.param(session, id="onnxruntime"),
    pytest.param(OpenVINO, id="openvino"),
    pytest.param(
        Tract, id="tract", marks=pytest.mark.skipif(tract is None, reason="no wheel of tract")
    ),
]
"""What loads a file, for tests over all runtimes."""

Load = Callable[[Path], Any]
