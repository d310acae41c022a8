"""Implements the interface of ``onnx.backend`` with the layers of this library.

from unrolled.onnx.backend import Backend

(y,) = Backend.run_model(model, [x])
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.backend.base
import torch
from onnx import helper
from torch import Tensor

from unrolled.onnx._importer.load import build_module
from unrolled.onnx._importer.model_file import read_model
from unrolled.onnx._importer.recurrent_node import INPUTS, is_recurrent

__all__ = ["Backend", "Prepared"]


class Prepared(onnx.backend.base.BackendRep):
    """A model that can be run. Inputs that are weights of layers are read at each call."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        constants = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [info.name for info in model.graph.input if info.name not in constants]
        weight_names = {
            name
            for node in model.graph.node
            if is_recurrent(node)
            for letter, name in zip(INPUTS[node.op_type], node.input, strict=False)
            if letter in ("W", "R", "B", "P")
        }
        self.weights = [name for name in self.inputs if name in weight_names]
        self.module = None if self.weights else build_module(model, {})

    def run(self, inputs: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
        """The graph's outputs, in their order.

        Args:
            inputs: arrays, one for each input in their order, or by name.

        Raises:
            ValueError: the number of inputs is wrong.
        """
        named = inputs if isinstance(inputs, Mapping) else self._by_name(inputs)
        if missing := [name for name in self.inputs if name not in named]:
            raise ValueError(
                f"run: inputs must include {', '.join(self.inputs)}, got no {missing[0]!r}"
            )
        arrays = {name: np.asarray(named[name]) for name in self.inputs}
        module = self.module
        if module is None:
            module = build_module(self.model, {name: arrays[name] for name in self.weights})
        arguments = [arrays[name] for name in self.inputs if name not in self.weights]
        with torch.no_grad():
            results = module(*(torch.from_numpy(np.array(array)) for array in arguments))
        tensors: tuple[Tensor, ...] = results if isinstance(results, tuple) else (results,)
        return tuple(tensor.numpy() for tensor in tensors)

    def _by_name(self, inputs: object) -> dict[str, object]:
        if not isinstance(inputs, Sequence) or len(inputs) != len(self.inputs):
            count = len(inputs) if isinstance(inputs, Sequence) else type(inputs).__name__
            raise ValueError(
                f"run: inputs must be {len(self.inputs)} arrays, {', '.join(self.inputs)}, got "
                f"{count}"
            )
        return dict(zip(self.inputs, inputs, strict=True))


class Backend(onnx.backend.base.Backend):
    """Runs the models that ``unrolled.onnx.load`` reads, on the CPU."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """A model that can be run.

        Raises:
            as ``unrolled.onnx.load``.
        """
        if not cls.supports_device(device):
            raise ValueError(f"prepare: device must be 'CPU', got {device!r}")
        return Prepared(read_model(model))

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether ``prepare`` accepts a model."""
        try:
            cls.prepare(model, device)
        except ValueError:
            return False
        return True

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Any = None,
        **kwargs: Any,
    ) -> tuple[np.ndarray, ...]:
        """One operator on arrays, one for each input that it names."""
        arrays = dict(zip([name for name in node.input if name], inputs, strict=True))
        types = {name: _type_of(np.asarray(array)) for name, array in arrays.items()}
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        output_types = onnx.shape_inference.infer_node_outputs(schema, node, types)
        graph = helper.make_graph(
            [node],
            "node",
            [helper.make_value_info(name, type_proto) for name, type_proto in types.items()],
            [helper.make_value_info(name, output_types[name]) for name in node.output if name],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
        return cls.prepare(model, device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU only."""
        return device == "CPU"


def _type_of(array: np.ndarray) -> onnx.TypeProto:
    element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_type_proto(element_type, array.shape)
