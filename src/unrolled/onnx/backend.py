"""Our layers behind the interface of ``onnx.backend``: models and nodes run on arrays.

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

from unrolled.onnx.importer.load import module_of
from unrolled.onnx.importer.model_file import read
from unrolled.onnx.importer.recurrent_node import INPUTS, is_recurrent

__all__ = ["Backend", "Prepared"]


class Prepared(onnx.backend.base.BackendRep):
    """A model that can be run. Inputs that are weights of its layers are read at each call."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        inside = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [one.name for one in model.graph.input if one.name not in inside]
        read_as_weights = {
            name
            for node in model.graph.node
            if is_recurrent(node)
            for letter, name in zip(INPUTS[node.op_type], node.input, strict=False)
            if letter in ("W", "R", "B", "P")
        }
        self.weights = [name for name in self.inputs if name in read_as_weights]
        self.module = None if self.weights else module_of(model, {})

    def run(self, inputs: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
        """The graph's outputs, in their order.

        Args:
            inputs: arrays, one for each input in their order, or by name.

        Raises:
            ValueError: there are more or fewer of them.
        """
        given = inputs if isinstance(inputs, Mapping) else dict(self._named(inputs))
        if missing := [name for name in self.inputs if name not in given]:
            raise ValueError(f"inputs: wanted {', '.join(self.inputs)}, {missing[0]!r} is missing")
        arrays = {name: np.asarray(given[name]) for name in self.inputs}
        module = self.module
        if module is None:
            module = module_of(self.model, {name: arrays[name] for name in self.weights})
        rest = [arrays[name] for name in self.inputs if name not in self.weights]
        with torch.no_grad():
            found = module(*(torch.from_numpy(np.array(array)) for array in rest))
        return tuple(one.numpy() for one in (found if isinstance(found, tuple) else (found,)))

    def _named(self, inputs: Any) -> zip:
        if not isinstance(inputs, Sequence) or len(inputs) != len(self.inputs):
            raise ValueError(f"inputs: wanted {len(self.inputs)} arrays, {', '.join(self.inputs)}")
        return zip(self.inputs, inputs, strict=True)


class Backend(onnx.backend.base.Backend):
    """Runs what ``unrolled.onnx.load`` reads, on the CPU."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """A model that can be run.

        Raises:
            as ``unrolled.onnx.load``.
        """
        if not cls.supports_device(device):
            raise ValueError(f"device: wanted 'CPU', got {device!r}")
        return Prepared(read(model))

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether ``prepare`` takes it."""
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
        named = dict(zip([name for name in node.input if name], inputs, strict=True))
        typed = {name: _type_of(np.asarray(array)) for name, array in named.items()}
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        made = onnx.shape_inference.infer_node_outputs(schema, node, typed)
        graph = helper.make_graph(
            [node],
            "node",
            [helper.make_value_info(name, one) for name, one in typed.items()],
            [helper.make_value_info(name, made[name]) for name in node.output if name],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
        return cls.prepare(model, device).run(named)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU alone."""
        return device == "CPU"


def _type_of(array: np.ndarray) -> onnx.TypeProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_type_proto(kind, array.shape)
