"""Nodes RNN, LSTM and GRU as layers, compared with the cases of the onnx package and with ONNX
Runtime over random attributes."""

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.backend.test.loader import load_model_tests
from torch import Tensor

from tests.support.onnx_nodes import ALPHAS, BETAS, FUNCTIONS, NAMES, activations, drawn, one_node
from tests.support.tolerances import assert_equal, close
from unrolled import cells, engines, nn
from unrolled.export import export
from unrolled.onnx import from_node
from unrolled.onnx._activations import ACTIVATIONS, Activation
from unrolled.onnx._directions import Directions
from unrolled.onnx._importer.recurrent_node import INPUTS
from unrolled.onnx._operator_cells import (
    Operator,
    OperatorCoupledLSTM,
    OperatorGRU,
    OperatorLSTM,
)
from unrolled.onnx.backend import Backend
from unrolled.runtime import load as load_runtime

OPERATORS = ("RNN", "GRU", "LSTM")


def shipped() -> list[Any]:
    """The cases of the three operators; building the others warns about overflows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node_cases = load_model_tests(kind="node")
    return [
        case for case in node_cases if {n.op_type for n in case.model.graph.node} & set(OPERATORS)
    ]


@pytest.mark.slow  # the package builds two thousand cases to select these
def test_cases_of_the_onnx_package(tmp_path: Any) -> None:
    cases = shipped()
    assert len(cases) >= 18
    assert {case.model.graph.node[0].op_type for case in cases} == set(OPERATORS)
    streamed = 0
    for case in cases:
        node = case.model.graph.node[0]
        assert Backend.is_compatible(case.model)
        for inputs, outputs in case.data_sets:
            arrays = [np.asarray(array) for array in inputs]
            with engines.use("native"), engines.record() as ran:
                results = Backend.run_model(case.model, arrays)
            assert set(ran) == {"native"}, case.name
            assert len(results) == len(outputs)
            for array, expected in zip(results, outputs, strict=True):
                np.testing.assert_allclose(array, expected, case.rtol, case.atol, err_msg=case.name)
            named = [name for name in node.output if name]
            for array, model_result in zip(Backend.run_node(node, arrays), results, strict=True):
                np.testing.assert_array_equal(array, model_result, case.name)
            streamed += _in_the_runtime(
                case, arrays, dict(zip(named, outputs, strict=True)), tmp_path
            )
    assert streamed >= 7


def _in_the_runtime(case: Any, arrays: list[Any], expected: dict[str, Any], tmp_path: Any) -> bool:
    """Run and step a case in the runtime, if it runs forward."""
    node = case.model.graph.node[0]
    attributes = {
        attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
    }
    inputs = dict(zip([name for name in node.input if name], arrays, strict=True))
    if attributes.get("direction", b"forward") != b"forward":
        return False
    assert not any(inputs[name].any() for name in inputs if name.startswith("initial"))
    batched = attributes.get("layout", 0) == 1
    layer = from_node(node, inputs)
    layer.batch_first = False  # the runtime reads time first
    export(layer, tmp_path / "layer")
    model = load_runtime(tmp_path / "layer")
    x = inputs["X"].swapaxes(0, 1) if batched else inputs["X"]
    ends = inputs.get("sequence_lens")
    y, ((final,),) = model.run(x, ends, return_state=True)
    results = {"Y": y[:, None], "Y_h": final[0][None]}
    if batched:
        results = {"Y": y.swapaxes(0, 1)[:, :, None], "Y_h": final[0][:, None]}
    for name in set(results) & set(expected):
        np.testing.assert_allclose(
            results[name], expected[name], case.rtol, case.atol, err_msg=name
        )
    if ends is None or (ends == len(x)).all():
        stream = model.stream(x.shape[1])
        stepped = np.stack([stream.step(row) for row in x])
        np.testing.assert_array_equal(stepped, y, case.name)
    return True


def agrees(results: Any, expected: Any, name: str) -> None:
    """Outputs are those of another runtime, in float32."""
    assert len(results) == len(expected)
    for result, expected_result in zip(results, expected, strict=True):
        close(torch.from_numpy(np.array(result)), torch.from_numpy(expected_result), "random", name)


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(90))
def test_random_attributes_against_onnxruntime(seed: int) -> None:
    op_type = OPERATORS[seed % 3]
    case = drawn(op_type, np.random.default_rng(seed))
    with engines.use("native"), engines.record() as ran:
        results = Backend.run_model(case.model, case.feeds)
    assert set(ran) == {"native"}
    agrees(results, case.in_onnxruntime(), str(case.node))


@pytest.mark.parametrize("op_type", OPERATORS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_batch_first_is_the_same_transposed(op_type: str, direction: str) -> None:
    """ONNX Runtime refuses layout 1, so it runs layout 0 on transposed arrays."""
    present = INPUTS[op_type][3:]
    plain = one_node(op_type, np.random.default_rng(3), present, direction=direction)
    node = onnx.NodeProto.FromString(plain.node.SerializeToString())
    node.attribute.append(helper.make_attribute("layout", 1))
    arrays = plain.tensors | plain.feeds
    batch_first_inputs = {"X", "initial_h", "initial_c"}
    inputs = [
        arrays[n].swapaxes(0, 1) if n in batch_first_inputs else arrays[n] for n in node.input
    ]
    Y, *states = Backend.run_node(node, inputs, opset_version=14)
    time_first = [Y.transpose(1, 2, 0, 3), *(state.swapaxes(0, 1) for state in states)]
    agrees(time_first, plain.in_onnxruntime(), str(node))


@pytest.mark.parametrize("op_type", OPERATORS)
def test_batch_first_in_the_reference_of_onnx(op_type: str) -> None:
    from onnx.reference import ReferenceEvaluator

    case = one_node(op_type, np.random.default_rng(4), ("B", "initial_h"), layout=1)
    expected = ReferenceEvaluator(case.model).run(None, case.feeds)
    results = Backend.run_model(case.model, case.feeds)
    agrees(
        results[:1] if op_type == "GRU" else results,
        expected[:1] if op_type == "GRU" else expected,
        op_type,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_parameters", [True, False])
def test_each_activation_by_its_definition(name: str, with_parameters: bool) -> None:
    x = np.linspace(-4, 4, 41)
    a, b = (ALPHAS.get(name), BETAS.get(name)) if with_parameters else (None, None)
    if name == "ScaledTanh" and not with_parameters:
        with pytest.raises(
            ValueError, match="ScaledTanh: alpha must be a number, as it has no default"
        ):
            Activation(name)
        return
    function = Activation(name, a, b)
    if not with_parameters:
        defaults = {"Affine": (1, 0), "LeakyRelu": (0.01, 0), "ThresholdedRelu": (1, 0),
                    "HardSigmoid": (0.2, 0.5), "Elu": (1, 0)}  # fmt: skip
        a, b = defaults.get(name, (0, 0))
    expected = {
        "Relu": lambda: np.where(x > 0, x, 0), "Tanh": lambda: np.tanh(x),
        "Sigmoid": lambda: 1 / (1 + np.exp(-x)), "Affine": lambda: a * x + b,
        "LeakyRelu": lambda: np.where(x >= 0, x, a * x),
        "ThresholdedRelu": lambda: np.where(x >= a, x, 0),
        "ScaledTanh": lambda: a * np.tanh(b * x),
        "HardSigmoid": lambda: np.minimum(np.maximum(a * x + b, 0), 1),
        "Elu": lambda: np.where(x >= 0, x, a * (np.exp(x) - 1)),
        "Softsign": lambda: x / (1 + abs(x)), "Softplus": lambda: np.log(1 + np.exp(x)),
    }[name]()  # fmt: skip
    close(torch.from_numpy(function(x)), torch.from_numpy(expected), "output", name)
    close(function(torch.from_numpy(x)), torch.from_numpy(expected), "output", name)
    bounded = Activation(name, function.alpha, function.beta, clip=1.5)
    assert_equal(
        torch.from_numpy(bounded(x)), torch.from_numpy(function(np.clip(x, -1.5, 1.5))), name
    )


def test_thresholded_relu_at_its_threshold_and_without_one() -> None:
    """ONNX Runtime returns 0 at x = α, and takes 0 for a missing α; the definition does not."""
    function = Activation("ThresholdedRelu")
    x = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    assert_equal(function(x), torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64), "default")
    assert Operator("RNN", (function,)).attributes() == {
        "activations": ["ThresholdedRelu"], "activation_alpha": [1.0],
    }  # fmt: skip
    weights = {name: np.ones((1, 1, 1), np.float32) for name in "WR"}
    node = onnx.helper.make_node(
        "RNN", ["x", "W", "R"], ["y"], hidden_size=1, activations=["ThresholdedRelu"]
    )
    y, _ = from_node(node, {**weights, "R": 0 * weights["R"]})(x.float().reshape(3, 1, 1))
    assert_equal(y.flatten(), torch.tensor([0.0, 1.0, 1.5]), "node without alpha")


def test_all_activations_of_the_definition_are_supported() -> None:
    text = onnx.defs.get_schema("LSTM", 14).doc
    assert all(f"* {name}(x)" in text for name in ACTIVATIONS)
    assert text.count("(x) ") == len(ACTIVATIONS) == len(NAMES)


def gradients(layer: Any, x: Tensor, engine: str) -> list[Tensor]:
    """Outputs, final states, and gradients of all parameters, on one engine."""
    layer.zero_grad()
    with engines.use(engine), engines.record() as ran:
        y, final = layer(x, lengths=[5, 2, 4])
        states = final if isinstance(final, tuple) else (final,)
        (sum(tensor.sin().sum() for tensor in states) + y.sin().sum()).backward()
    assert set(ran) == {engine}
    return [y, *states, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize("seed", range(12))
def test_gradients_of_the_operators_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    op_type = OPERATORS[seed % 3]
    names = [str(name) for name in rng.choice(NAMES, FUNCTIONS[op_type])]
    attributes: dict[str, Any] = {"clip": 0.6} if seed % 2 else {}
    attributes |= {"input_forget": seed // 6} if op_type == "LSTM" else {}
    attributes |= {"linear_before_reset": seed // 6} if op_type == "GRU" else {}
    present = ("B", "P") if op_type == "LSTM" and seed % 4 < 2 else ("B",)
    case = one_node(op_type, rng, present, dtype=np.float64, **activations(names), **attributes)
    layer = from_node(case.node, case.tensors)
    x = torch.from_numpy(case.feeds["X"])
    for native, reference in zip(gradients(layer, x, "native"), gradients(layer, x, "reference"),
                          strict=True):  # fmt: skip
        close(native, reference, "random", str(case.node))


@pytest.mark.parametrize(
    ("general", "published"),
    [
        (OperatorLSTM(), cells.LSTM()),
        (OperatorLSTM(peepholes=True), cells.PeepholeLSTM()),
        (OperatorCoupledLSTM(), cells.CoupledLSTM()),
        (OperatorGRU(), cells.ResetBeforeGRU()),
        (OperatorGRU(linear_before_reset=True), cells.GRU()),
    ],
    ids=lambda cell: type(cell).__name__,
)
def test_general_cells_equal_published_ones(general: cells.Cell, published: cells.Cell) -> None:
    """With the default functions they are equal to the bit, although the equations are written
    twice."""
    layers = [nn.Recurrent(cell, 4, 5, dtype=torch.float64) for cell in (general, published)]
    layers[0].load_state_dict(layers[1].state_dict())
    x = torch.randn(7, 3, 4, dtype=torch.float64)
    general_output, published_output = (layer(x)[0] for layer in layers)
    assert_equal(general_output, published_output, repr(general))


@pytest.mark.parametrize(
    ("op_type", "attributes", "present", "cell", "module"),
    [
        ("RNN", {}, ("B",), cells.RNN, nn.RNN),
        ("RNN", {"activations": ["Relu"]}, ("B",), cells.RNN, nn.RNN),
        ("RNN", {"activations": ["Softsign"]}, ("B",), cells.RNN, nn.RNN),
        ("LSTM", {}, ("B",), cells.LSTM, nn.LSTM),
        ("LSTM", {"direction": "bidirectional"}, (), cells.LSTM, nn.LSTM),
        ("LSTM", {}, ("B", "P"), cells.PeepholeLSTM, nn.Recurrent),
        ("LSTM", {"input_forget": 1}, ("B",), cells.CoupledLSTM, nn.Recurrent),
        ("LSTM", {"input_forget": 1}, ("B", "P"), OperatorCoupledLSTM, nn.Recurrent),
        ("LSTM", {"clip": 3.0}, ("B",), OperatorLSTM, nn.Recurrent),
        ("GRU", {"linear_before_reset": 1}, ("B",), cells.GRU, nn.GRU),
        ("GRU", {}, ("B",), cells.ResetBeforeGRU, nn.Recurrent),
        ("GRU", {"clip": 3.0}, ("B",), OperatorGRU, nn.Recurrent),
    ],
)
def test_a_node_becomes_the_most_specific_layer(
    op_type: str, attributes: dict[str, Any], present: tuple[str, ...], cell: type, module: type
) -> None:
    case = one_node(op_type, np.random.default_rng(0), present, **attributes)
    layer = from_node(case.node, case.tensors)
    assert type(layer) is module
    assert type(layer.cell) is cell
    assert layer.bias == ("B" in present)
    if "activations" in attributes and module is nn.RNN and attributes["activations"] == ["Relu"]:
        assert layer.nonlinearity == "relu"


def test_an_explicit_default_is_a_default() -> None:
    attributes = {"activations": ["Sigmoid", "Tanh", "Tanh"], "direction": "forward", "layout": 0}
    case = one_node("LSTM", np.random.default_rng(0), **attributes)
    assert type(from_node(case.node, case.tensors)) is nn.LSTM


def test_different_functions_in_each_direction_become_two_layers() -> None:
    attributes = activations(["Tanh", "Elu"])
    case = one_node("RNN", np.random.default_rng(0), direction="bidirectional", **attributes)
    layer = from_node(case.node, case.tensors)
    assert isinstance(layer, Directions)
    assert [repr(cell) for cell in layer.cells] == [
        "RNN(activation=tanh)", "RNN(activation=Elu(alpha=0.6))",
    ]  # fmt: skip
    assert layer.num_directions == 2


def test_from_node_draws_no_random_numbers() -> None:
    case = one_node("GRU", np.random.default_rng(0))
    rng_state = torch.get_rng_state()
    from_node(case.node, case.tensors)
    assert_equal(torch.get_rng_state(), rng_state)


def test_alpha_and_beta_are_consumed_by_those_that_have_them() -> None:
    names = ["Sigmoid", "LeakyRelu", "Elu"]
    case = one_node("LSTM", np.random.default_rng(0), activations=names, activation_alpha=[0.5])
    cell = from_node(case.node, case.tensors).cell
    assert (cell.g.alpha, cell.h.alpha) == (0.5, 1.0)
    agrees(Backend.run_model(case.model, case.feeds), case.in_onnxruntime(), "alpha")
    rnn = one_node("RNN", np.random.default_rng(0), activations=["Elu"], activation_alpha=[0.5, 7])
    assert from_node(rnn.node, rnn.tensors).cell.activation.alpha == 0.5


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("RNN", {"activations": ["Swish"]}, "activations must be among Relu, .*got 'Swish'"),
    ("LSTM", {"activations": ["Tanh"]}, "activations must have 3 items"),
    ("GRU", {"direction": "sideways"}, "direction must be one of forward, .* got 'sideways'"),
    ("RNN", {"layout": 2}, "layout must be 0 or 1, got 2"),
    ("RNN", {"clip": 0.0}, "clip must be greater than zero, got 0.0"),
    ("RNN", {"clip": float("nan")}, "clip must be finite"),
    ("RNN", {"activations": ["ScaledTanh"]}, "ScaledTanh: alpha must be a number"),
    ("RNN", {"colour": 1}, "attributes must be those of ONNX, got colour"),
    ("RNN", {"activations": ["Elu"], "activation_alpha": [float("inf")]}, "alpha must be finite"),
    ("LSTM", {"activations": ["Tanh", "Elu", "Tanh"], "activation_alpha": [0.1, 0.2]},
     "activation_alpha must have 1 numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("op_type", "attributes", "message"), FAULTS)
def test_attributes_that_do_not_fit_are_named(
    op_type: str, attributes: dict[str, Any], message: str
) -> None:
    case = one_node(op_type, np.random.default_rng(0))
    case.node.attribute.extend(
        helper.make_attribute(name, value) for name, value in attributes.items()
    )
    with pytest.raises(ValueError, match=f"{op_type} 'Y, Y_h.*: {message}"):
        from_node(case.node, case.tensors)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("W", np.zeros((2, 24, 4), np.float32), "W must have shape"),
        ("W", np.zeros((1, 23, 4), np.float32), "W must have shape"),
        ("W", np.zeros(4, np.float32), "W and R must have shapes"),
        ("R", np.zeros((1, 24, 5), np.float32), "hidden_size must be 5"),
        ("R", np.zeros((1, 24, 0), np.float32), "W and R must have shapes"),
        ("B", np.zeros((1, 47), np.float32), r"B must have shape \[1, 48\]"),
        ("B", np.zeros((1, 48), np.float64), "B must be float32, .* got float64"),
        ("W", np.zeros((1, 24, 4), np.int32), "W must be float32"),
    ],
)
def test_weights_that_do_not_fit_are_named(name: str, array: np.ndarray, message: str) -> None:
    case = one_node("LSTM", np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        from_node(case.node, {**case.tensors, name: array})


def test_missing_weights_are_named() -> None:
    case = one_node("LSTM", np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"LSTM .*: B must be among the tensors, got no 'B'"):
        from_node(case.node, {k: v for k, v in case.tensors.items() if k != "B"})
    with pytest.raises(ValueError, match="node must be RNN, LSTM or GRU, got 'Relu'"):
        from_node(helper.make_node("Relu", ["x"], ["y"]), {})


def test_an_operator_of_the_wrong_number_of_functions() -> None:
    with pytest.raises(ValueError, match="LSTM: activations must have 3 items, got 1"):
        Operator("LSTM", (Activation("Tanh"),))
    with pytest.raises(ValueError, match="operator must be one of"):
        Operator("MGU")
