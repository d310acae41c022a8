"""Layers alone, with transposes and operators around them, as modules."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from tests.support.onnx_nodes import I, N, T, model_of, one_node
from tests.support.tolerances import assert_equal, close
from unrolled import nn
from unrolled.onnx import RefusedError, layers_of, load
from unrolled.onnx._directions import Directions
from unrolled.onnx.backend import Backend


@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("default_functions", [True, False])
def test_transposes_around_a_layer(op_type: str, direction: str, default_functions: bool) -> None:
    """They become batch_first, in any direction; the results are those of ONNX Runtime."""
    import onnxruntime

    D = 2 if direction == "bidirectional" else 1
    names = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}[op_type] * D
    attributes = {} if default_functions else {"activations": [*names[:-1], "Softsign"]}
    present = ("B", "sequence_lens", "initial_h")
    case = one_node(op_type, np.random.default_rng(0), present, direction=direction, **attributes)
    case.node.input[0] = "major"
    make = helper.make_node
    exchange_axes, merge_axes = ({"perm": perm} for perm in ([1, 0, 2], [0, 2, 1, 3]))
    new_nodes = [
        make("Transpose", ["X"], ["major"], **exchange_axes), case.node,
        make("Transpose", ["Y"], ["apart"], **merge_axes),
        make("Reshape", ["apart", "shape"], ["all"]),
        make("Transpose", ["all"], ["y"], **exchange_axes),
    ]  # fmt: skip
    graph = case.model.graph
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in new_nodes]  # copies
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1]), "shape"))
    graph.output.extend(helper.make_tensor_value_info(k, 1, [None] * 3) for k in ("y", "Y_h"))
    x = case.feeds["X"].swapaxes(0, 1).copy()
    for k, dim in enumerate(x.shape):
        graph.input[0].type.tensor_type.shape.dim[k].dim_value = dim
    session = onnxruntime.InferenceSession(case.model.SerializeToString())
    expected = session.run(None, {**case.feeds, "X": x})
    module = load(case.model)
    assert not any(node.target is torch.permute for node in module.graph.nodes)
    results = module(*(torch.from_numpy(array) for array in ({**case.feeds, "X": x}).values()))
    for result, expected_result in zip(results, expected, strict=True):
        close(result.detach(), torch.from_numpy(expected_result), "output", "batch first")


def around(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A GRU between operators of which some are not supported."""
    case = one_node("GRU", rng, ("B", "initial_h"))
    arrays = case.tensors | {"initial_h": case.feeds["initial_h"]}
    case.node.input[0] = "strange"
    case.node.name = "the_layer"
    nodes = [
        helper.make_node("Det", ["x"], ["unused"]), helper.make_node("Erf", ["x"], ["strange"]),
        case.node, helper.make_node("Gelu", ["Y_h"], ["y"]),
    ]  # fmt: skip
    return nodes, arrays


def test_layers_alone() -> None:
    nodes, arrays = around(np.random.default_rng(0))
    model = model_of(nodes, arrays, ["y"], opset=20)
    (layer,) = layers_of(model)
    assert layer.name == "the_layer"
    assert isinstance(layer.module, nn.Recurrent)
    assert isinstance(layer.hx, Tensor)
    x = np.random.default_rng(1).standard_normal((T, N, I)).astype(np.float32)
    single = one_node("GRU", np.random.default_rng(0), ("B", "initial_h"))
    Y, Y_h = Backend.run_model(single.model, {**single.feeds, "X": x})
    with torch.no_grad():
        y, h = layer.module(torch.from_numpy(x), layer.hx)
    assert_equal(y, torch.from_numpy(Y[:, 0]))
    assert_equal(h, torch.from_numpy(Y_h))
    with pytest.raises(RefusedError, match="Gelu 'y': the operator must be"):
        load(model)


def test_layers_alone_with_states_batch_first() -> None:
    case = one_node("LSTM", np.random.default_rng(0), ("initial_c",), layout=1, direction="reverse")
    arrays = case.tensors | {"initial_c": case.feeds["initial_c"]}
    Y, Y_h, Y_c = Backend.run_model(case.model, case.feeds)
    case.node.input[0] = "x"
    (layer,) = layers_of(model_of([case.node], arrays, ["Y"]))
    assert isinstance(layer.module, Directions)
    assert isinstance(layer.hx, tuple)
    x = torch.from_numpy(case.feeds["X"])
    with torch.no_grad():
        y, (h, c) = layer.module(x, layer.hx)
    assert_equal(y, torch.from_numpy(Y[:, :, 0]))
    assert_equal(h[0], torch.from_numpy(Y_h[:, 0]))
    assert_equal(c[0], torch.from_numpy(Y_c[:, 0]))


def rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_operators_by_onnxruntime() -> None:
    """The operators around layers in one graph, in their older and newer forms."""
    import onnxruntime

    rng = np.random.default_rng(2)
    ints = {
        "ends": np.array([1]), "far": np.array([2**63 - 1]), "zero": np.array([0]),
        "last": np.array(-1), "shape": np.array([0, -1, 2]), "picks": np.array([[1, -1], [0, 2]]),
        "two": np.array([2]), "back": np.array([-1]), "low": np.array([-(2**63)]),
    }  # fmt: skip
    arrays = ints | {"W": rows(rng, I, 6), "b": rows(rng, 6), "G": rows(rng, 5, 6),
                     "c": rows(rng, 5), "half": np.float32(0.5)}  # fmt: skip
    make = helper.make_node
    nodes = [
        make("MatMul", ["x", "W"], ["m"]), make("Add", ["b", "m"], ["lin"]),
        make("LeakyRelu", ["lin"], ["leaky"], alpha=0.3), make("HardSigmoid", ["lin"], ["hard"]),
        make("Mul", ["leaky", "hard"], ["mul"]), make("Reshape", ["mul", "shape"], ["r"]),
        make("Transpose", ["r"], ["t"], perm=[2, 0, 1]), make("Slice", ["t", "ends", "far"], ["s"]),
        make("Unsqueeze", ["s", "zero"], ["u"]), make("Squeeze", ["u", "zero"], ["y1"]),
        make("Gather", ["lin", "last"], ["g"], axis=1), make("Gemm", ["g", "G", "c"], ["gemm"],
                                                             transB=1),
        make("LogSoftmax", ["gemm"], ["y2"]), make("Gather", ["gemm", "picks"], ["y3"], axis=1),
        make("Split", ["lin"], ["a1", "a2"], axis=2, num_outputs=2),
        make("Less", ["a1", "a2"], ["less"]), make("Where", ["less", "a1", "half"], ["w"]),
        make("Concat", ["w", "a2"], ["cat"], axis=2), make("ReduceMean", ["cat", "zero"], ["y4"],
                                                           keepdims=0),
        make("Slice", ["lin", "back", "low", "two", "back"], ["y5"]),
        make("Shape", ["x"], ["n"], start=0, end=2), make("Expand", ["half", "n"], ["y6"]),
        make("Softmax", ["lin"], ["y7"], axis=1), make("Pow", ["hard", "half"], ["p"]),
        make("Max", ["p", "half"], ["y8"]), make("Transpose", ["lin"], ["lt"], perm=[1, 0, 2]),
        make("Softmax", ["lt"], ["sm"], axis=2), make("Add", ["sm", "b"], ["y9"]),
    ]  # fmt: skip
    names = [f"y{k}" for k in range(1, 10)]
    model = model_of(nodes, arrays, names)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    x = rows(rng, 4, 3, I)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for output in model.graph.output:
        output.type.tensor_type.shape.SetInParent()
    results = load(model)(torch.from_numpy(x))
    for name, result, expected in zip(names, results, session.run(None, {"x": x}), strict=True):
        close(result.detach(), torch.from_numpy(expected), "output", name)
