"""Nodes RNN, LSTM and GRU as layers: the cases inside of the onnx package, ONNX Runtime over the
space of attributes, and which layer comes out."""

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
from tests.support.tolerances import close, same
from unrolled import cells, engines, nn
from unrolled.export import export
from unrolled.onnx import from_node
from unrolled.onnx.activations import ACTIVATIONS, Activation
from unrolled.onnx.backend import Backend
from unrolled.onnx.directions import Directions
from unrolled.onnx.importer.recurrent_node import INPUTS
from unrolled.onnx.operator_cells import (
    Operator,
    OperatorCoupledLSTM,
    OperatorGRU,
    OperatorLSTM,
)
from unrolled.runtime import load as load_runtime

KINDS = ("RNN", "GRU", "LSTM")


def shipped() -> list[Any]:
    """The operators' own cases; making all the others warns of overflows in them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    return [case for case in found if {n.op_type for n in case.model.graph.node} & set(KINDS)]


@pytest.mark.slow  # the package makes two thousand cases, of which these are some
def test_the_cases_inside_of_the_onnx_package(tmp_path: Any) -> None:
    cases = shipped()
    assert len(cases) >= 18
    assert {case.model.graph.node[0].op_type for case in cases} == set(KINDS)
    streamed = 0
    for case in cases:
        node = case.model.graph.node[0]
        assert Backend.is_compatible(case.model)
        for inputs, outputs in case.data_sets:
            arrays = [np.asarray(one) for one in inputs]
            with engines.use("native"), engines.record() as ran:
                found = Backend.run_model(case.model, arrays)
            assert set(ran) == {"native"}, case.name
            assert len(found) == len(outputs)
            for one, wanted in zip(found, outputs, strict=True):
                np.testing.assert_allclose(one, wanted, case.rtol, case.atol, err_msg=case.name)
            named = [name for name in node.output if name]
            for one, two in zip(Backend.run_node(node, arrays), found, strict=True):
                np.testing.assert_array_equal(one, two, case.name)
            streamed += _in_the_runtime(
                case, arrays, dict(zip(named, outputs, strict=True)), tmp_path
            )
    assert streamed >= 7


def _in_the_runtime(case: Any, arrays: list[Any], wanted: dict[str, Any], tmp_path: Any) -> bool:
    """Run and step a case in the runtime, if it runs forward."""
    node = case.model.graph.node[0]
    told = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    given = dict(zip([name for name in node.input if name], arrays, strict=True))
    if told.get("direction", b"forward") != b"forward":
        return False
    assert not any(given[name].any() for name in given if name.startswith("initial"))
    batched = told.get("layout", 0) == 1
    layer = from_node(node, given)
    layer.batch_first = False  # the runtime reads time first
    export(layer, tmp_path / "layer")
    model = load_runtime(tmp_path / "layer")
    x = given["X"].swapaxes(0, 1) if batched else given["X"]
    ends = given.get("sequence_lens")
    y, ((final,),) = model.run(x, ends, return_state=True)
    found = {"Y": y[:, None], "Y_h": final[0][None]}
    if batched:
        found = {"Y": y.swapaxes(0, 1)[:, :, None], "Y_h": final[0][:, None]}
    for name in set(found) & set(wanted):
        np.testing.assert_allclose(found[name], wanted[name], case.rtol, case.atol, err_msg=name)
    if ends is None or (ends == len(x)).all():
        stream = model.stream(x.shape[1])
        stepped = np.stack([stream.step(one) for one in x])
        np.testing.assert_array_equal(stepped, y, case.name)
    return True


def agrees(found: Any, wanted: Any, name: str) -> None:
    """Outputs are those of another runtime, in float32."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        close(torch.from_numpy(np.array(one)), torch.from_numpy(other), "random", name)


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(90))
def test_onnxruntime_over_the_space_of_attributes(seed: int) -> None:
    kind = KINDS[seed % 3]
    case = drawn(kind, np.random.default_rng(seed))
    with engines.use("native"), engines.record() as ran:
        found = Backend.run_model(case.model, case.feeds)
    assert set(ran) == {"native"}
    agrees(found, case.in_onnxruntime(), str(case.node))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_batch_first_is_the_same_transposed(kind: str, direction: str) -> None:
    """ONNX Runtime refuses layout 1, so it runs layout 0 on the transposed."""
    present = INPUTS[kind][3:]
    plain = one_node(kind, np.random.default_rng(3), present, direction=direction)
    node = onnx.NodeProto.FromString(plain.node.SerializeToString())
    node.attribute.append(helper.make_attribute("layout", 1))
    arrays = plain.tensors | plain.feeds
    turned = {"X", "initial_h", "initial_c"}
    given = [arrays[n].swapaxes(0, 1) if n in turned else arrays[n] for n in node.input]
    Y, *states = Backend.run_node(node, given, opset_version=14)
    back = [Y.transpose(1, 2, 0, 3), *(one.swapaxes(0, 1) for one in states)]
    agrees(back, plain.in_onnxruntime(), str(node))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_in_the_reference_of_onnx(kind: str) -> None:
    from onnx.reference import ReferenceEvaluator

    case = one_node(kind, np.random.default_rng(4), ("B", "initial_h"), layout=1)
    wanted = ReferenceEvaluator(case.model).run(None, case.feeds)
    found = Backend.run_model(case.model, case.feeds)
    agrees(found[:1] if kind == "GRU" else found, wanted[:1] if kind == "GRU" else wanted, kind)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [True, False])
def test_each_activation_by_its_definition(name: str, given: bool) -> None:
    x = np.linspace(-4, 4, 41)
    a, b = (ALPHAS.get(name), BETAS.get(name)) if given else (None, None)
    if name == "ScaledTanh" and not given:
        with pytest.raises(
            ValueError, match="ScaledTanh: alpha must be a number, as it has no default"
        ):
            Activation(name)
        return
    function = Activation(name, a, b)
    if not given:
        defaults = {"Affine": (1, 0), "LeakyRelu": (0.01, 0), "ThresholdedRelu": (1, 0),
                    "HardSigmoid": (0.2, 0.5), "Elu": (1, 0)}  # fmt: skip
        a, b = defaults.get(name, (0, 0))
    wanted = {
        "Relu": lambda: np.where(x > 0, x, 0), "Tanh": lambda: np.tanh(x),
        "Sigmoid": lambda: 1 / (1 + np.exp(-x)), "Affine": lambda: a * x + b,
        "LeakyRelu": lambda: np.where(x >= 0, x, a * x),
        "ThresholdedRelu": lambda: np.where(x >= a, x, 0),
        "ScaledTanh": lambda: a * np.tanh(b * x),
        "HardSigmoid": lambda: np.minimum(np.maximum(a * x + b, 0), 1),
        "Elu": lambda: np.where(x >= 0, x, a * (np.exp(x) - 1)),
        "Softsign": lambda: x / (1 + abs(x)), "Softplus": lambda: np.log(1 + np.exp(x)),
    }[name]()  # fmt: skip
    close(torch.from_numpy(function(x)), torch.from_numpy(wanted), "output", name)
    close(function(torch.from_numpy(x)), torch.from_numpy(wanted), "output", name)
    bounded = Activation(name, function.alpha, function.beta, clip=1.5)
    same(torch.from_numpy(bounded(x)), torch.from_numpy(function(np.clip(x, -1.5, 1.5))), name)


def test_thresholded_relu_at_its_threshold_and_without_one() -> None:
    """ONNX Runtime has 0 at x = α, and α = 0 where a node says none: the definition has not."""
    function = Activation("ThresholdedRelu")
    x = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    same(function(x), torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64), "default")
    assert Operator("RNN", (function,)).attributes() == {
        "activations": ["ThresholdedRelu"], "activation_alpha": [1.0],
    }  # fmt: skip
    weights = {name: np.ones((1, 1, 1), np.float32) for name in "WR"}
    node = onnx.helper.make_node(
        "RNN", ["x", "W", "R"], ["y"], hidden_size=1, activations=["ThresholdedRelu"]
    )
    y, _ = from_node(node, {**weights, "R": 0 * weights["R"]})(x.float().reshape(3, 1, 1))
    same(y.flatten(), torch.tensor([0.0, 1.0, 1.5]), "node without alpha")


def test_all_activations_of_the_definition_are_there() -> None:
    text = onnx.defs.get_schema("LSTM", 14).doc
    assert all(f"* {name}(x)" in text for name in ACTIVATIONS)
    assert text.count("(x) ") == len(ACTIVATIONS) == len(NAMES)


def gradients(layer: Any, x: Tensor, engine: str) -> list[Tensor]:
    """Outputs, final states, and slopes of all parameters, on one engine."""
    layer.zero_grad()
    with engines.use(engine), engines.record() as ran:
        y, final = layer(x, lengths=[5, 2, 4])
        states = final if isinstance(final, tuple) else (final,)
        (sum(one.sin().sum() for one in states) + y.sin().sum()).backward()
    assert set(ran) == {engine}
    return [y, *states, *(one.grad.clone() for one in layer.parameters())]


@pytest.mark.parametrize("seed", range(12))
def test_gradients_of_the_operators_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % 3]
    names = [str(one) for one in rng.choice(NAMES, FUNCTIONS[kind])]
    rest: dict[str, Any] = {"clip": 0.6} if seed % 2 else {}
    rest |= {"input_forget": seed // 6} if kind == "LSTM" else {}
    rest |= {"linear_before_reset": seed // 6} if kind == "GRU" else {}
    present = ("B", "P") if kind == "LSTM" and seed % 4 < 2 else ("B",)
    case = one_node(kind, rng, present, dtype=np.float64, **activations(names), **rest)
    layer = from_node(case.node, case.tensors)
    x = torch.from_numpy(case.feeds["X"])
    for one, other in zip(gradients(layer, x, "native"), gradients(layer, x, "reference"),
                          strict=True):  # fmt: skip
        close(one, other, "random", str(case.node))


@pytest.mark.parametrize(
    ("general", "known"),
    [
        (OperatorLSTM(), cells.LSTM()),
        (OperatorLSTM(peepholes=True), cells.PeepholeLSTM()),
        (OperatorCoupledLSTM(), cells.CoupledLSTM()),
        (OperatorGRU(), cells.ResetBeforeGRU()),
        (OperatorGRU(linear_before_reset=True), cells.GRU()),
    ],
    ids=lambda cell: type(cell).__name__,
)
def test_the_general_cells_are_the_known_ones(general: cells.Cell, known: cells.Cell) -> None:
    """With the operators' own functions, to the bit: equations stand twice, but cannot part."""
    layers = [nn.Recurrent(cell, 4, 5, dtype=torch.float64) for cell in (general, known)]
    layers[0].load_state_dict(layers[1].state_dict())
    x = torch.randn(7, 3, 4, dtype=torch.float64)
    one, two = (layer(x)[0] for layer in layers)
    same(one, two, repr(general))


@pytest.mark.parametrize(
    ("kind", "told", "present", "cell", "module"),
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
def test_a_node_is_the_plainest_layer(
    kind: str, told: dict[str, Any], present: tuple[str, ...], cell: type, module: type
) -> None:
    case = one_node(kind, np.random.default_rng(0), present, **told)
    layer = from_node(case.node, case.tensors)
    assert type(layer) is module
    assert type(layer.cell) is cell
    assert layer.bias == ("B" in present)
    if "activations" in told and module is nn.RNN and told["activations"] == ["Relu"]:
        assert layer.nonlinearity == "relu"


def test_an_explicit_default_is_a_default() -> None:
    told = {"activations": ["Sigmoid", "Tanh", "Tanh"], "direction": "forward", "layout": 0}
    case = one_node("LSTM", np.random.default_rng(0), **told)
    assert type(from_node(case.node, case.tensors)) is nn.LSTM


def test_directions_of_other_functions_are_two_layers() -> None:
    told = activations(["Tanh", "Elu"])
    case = one_node("RNN", np.random.default_rng(0), direction="bidirectional", **told)
    layer = from_node(case.node, case.tensors)
    assert isinstance(layer, Directions)
    assert [repr(cell) for cell in layer.cells] == [
        "RNN(activation=tanh)", "RNN(activation=Elu(alpha=0.6))",
    ]  # fmt: skip
    assert layer.num_directions == 2


def test_reading_draws_no_random_number() -> None:
    case = one_node("GRU", np.random.default_rng(0))
    before = torch.get_rng_state()
    from_node(case.node, case.tensors)
    same(torch.get_rng_state(), before)


def test_alpha_and_beta_are_consumed_by_those_that_have_them() -> None:
    names = ["Sigmoid", "LeakyRelu", "Elu"]
    case = one_node("LSTM", np.random.default_rng(0), activations=names, activation_alpha=[0.5])
    cell = from_node(case.node, case.tensors).cell
    assert (cell.g.alpha, cell.h.alpha) == (0.5, 1.0)
    agrees(Backend.run_model(case.model, case.feeds), case.in_onnxruntime(), "alpha")
    one = one_node("RNN", np.random.default_rng(0), activations=["Elu"], activation_alpha=[0.5, 7])
    assert from_node(one.node, one.tensors).cell.activation.alpha == 0.5


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


@pytest.mark.parametrize(("kind", "told", "message"), FAULTS)
def test_attributes_that_do_not_fit_are_named(
    kind: str, told: dict[str, Any], message: str
) -> None:
    case = one_node(kind, np.random.default_rng(0))
    case.node.attribute.extend(helper.make_attribute(name, value) for name, value in told.items())
    with pytest.raises(ValueError, match=f"{kind} 'Y, Y_h.*: {message}"):
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
