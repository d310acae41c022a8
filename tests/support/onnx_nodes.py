"""Nodes RNN, LSTM and GRU drawn at random, models of one node, and what other runtimes say."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from unrolled.onnx._importer.recurrent_node import INPUTS

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
ALPHAS = {"Affine": 0.7, "LeakyRelu": 0.2, "ThresholdedRelu": 0.3, "ScaledTanh": 1.3,
          "HardSigmoid": 0.3, "Elu": 0.6}  # fmt: skip
BETAS = {"Affine": 0.1, "ScaledTanh": 0.8, "HardSigmoid": 0.4}
NAMES = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *ALPHAS)
T, N, I, H = 5, 3, 4, 6  # noqa: E741


@dataclass
class OneNode:
    """A model of one node, whose weights are constants, and arrays for its other inputs."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]

    @property
    def node(self) -> onnx.NodeProto:
        return self.model.graph.node[0]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        return {array.name: numpy_helper.to_array(array) for array in self.model.graph.initializer}

    def in_onnxruntime(self) -> list[np.ndarray]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, self.feeds)


def one_node(
    operator: str,
    rng: np.random.Generator,
    present: tuple[str, ...] = ("B",),
    *,
    dtype: Any = np.float32,
    opset: int = 14,
    **attributes: Any,
) -> OneNode:
    """A node with random weights; ``present`` names the optional inputs that it has."""
    D = 2 if attributes.get("direction") == "bidirectional" else 1
    G = GATES[operator]
    batched = attributes.get("layout", 0) == 1
    state = (N, D, H) if batched else (D, N, H)
    shapes = {
        "X": (N, T, I) if batched else (T, N, I), "W": (D, G * H, I), "R": (D, G * H, H),
        "B": (D, 2 * G * H), "P": (D, 3 * H), "initial_h": state, "initial_c": state,
    }  # fmt: skip
    arrays: dict[str, np.ndarray] = {
        name: (rng.standard_normal(shape) * (1.0 if name == "X" else 0.35)).astype(dtype)
        for name, shape in shapes.items()
    }
    arrays["sequence_lens"] = rng.permutation([T, 2, 3]).astype(np.int32)
    present_inputs = {"X", "W", "R", *present}
    names = [name if name in present_inputs else "" for name in INPUTS[operator]]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if operator == "LSTM" else 2]
    node = helper.make_node(operator, names, outputs, hidden_size=H, **attributes)
    fed = [name for name in names if name and name not in "WRBP"]
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info(
            name, TensorProto.INT32 if name == "sequence_lens" else number, arrays[name].shape)
         for name in fed],
        [helper.make_tensor_value_info(name, number, [None] * (4 if name == "Y" else 3))
         for name in outputs],
        [numpy_helper.from_array(arrays[name], name) for name in names if name in set("WRBP")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return OneNode(model, {name: arrays[name] for name in fed})


def activations(names: list[str]) -> dict[str, Any]:
    """The attributes that name these functions, with α and β as the operators consume them."""
    attributes: dict[str, Any] = {"activations": names}
    for letter, table in (("alpha", ALPHAS), ("beta", BETAS)):
        numbers = [table[name] for name in names if name in table]
        if numbers:
            attributes[f"activation_{letter}"] = numbers
    return attributes


def drawn(operator: str, rng: np.random.Generator) -> OneNode:
    """A node with random attributes and optional inputs, as onnxruntime takes them."""
    attributes: dict[str, Any] = {
        "direction": str(rng.choice(["forward", "reverse", "bidirectional"]))
    }
    D = 2 if attributes["direction"] == "bidirectional" else 1
    if rng.random() < 0.6:
        attributes |= activations(
            [str(name) for name in rng.choice(NAMES, FUNCTIONS[operator] * D)]
        )
    if rng.random() < 0.4:
        attributes["clip"] = float(rng.choice([0.4, 0.9]))
    if operator == "LSTM":
        attributes["input_forget"] = int(rng.random() < 0.4)
    if operator == "GRU":
        attributes["linear_before_reset"] = int(rng.random() < 0.5)
    optional = [name for name in INPUTS[operator][3:] if rng.random() < 0.5]
    return one_node(operator, rng, tuple(optional), **attributes)


def model_of(
    nodes: list[onnx.NodeProto],
    arrays: dict[str, np.ndarray],
    outputs: list[str],
    inputs: dict[str, list[Any]] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A model of nodes and constants; outputs of any shape."""
    input_shapes = {"x": [None, None, I]} if inputs is None else inputs
    graph = helper.make_graph(
        nodes, "made",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in input_shapes.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in outputs],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )  # fmt: skip
    for output in graph.output:
        output.type.tensor_type.shape.SetInParent()
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
