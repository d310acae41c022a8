"""Operators around recurrent nodes compute after import what ONNX Runtime computes: random graphs,
and graphs whose results were wrong once."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.support.onnx_graphs import by_onnxruntime, draw_graph
from tests.support.onnx_nodes import H, I, N, T, model_of, one_node
from tests.support.tolerances import close
from unrolled.onnx import layers_of, load
from unrolled.onnx._importer.load import converted_graph

GRAPHS, BATCH = 40, 20


def agrees(model: onnx.ModelProto, shape: tuple[int, ...], name: str, may_refuse: bool) -> bool:
    """The module computes what ONNX Runtime does, or refuses sizes that are not the example's;
    whether both computed something. ONNX Runtime is asked only for what the module computes."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    try:
        with torch.no_grad():
            results = load(model)(torch.from_numpy(x))
    except (ValueError, RuntimeError):
        if not may_refuse:
            raise
        return False
    expected = by_onnxruntime(model, x)
    if expected is None:
        return False
    results = results if isinstance(results, tuple) else (results,)
    for result, expected_result in zip(results, expected, strict=True):
        close(result, torch.from_numpy(expected_result), "random", name)
    return True


@pytest.mark.parametrize("begin", range(0, GRAPHS, BATCH))
def test_random_graphs(begin: int) -> None:
    for seed in range(begin, begin + BATCH):
        drawn = draw_graph(seed)
        assert agrees(drawn.model, drawn.example, f"seed {seed}", may_refuse=False)
        if drawn.other_sizes is not None:
            agrees(drawn.model, drawn.other_sizes, f"seed {seed}, other sizes", may_refuse=True)


def test_shapes_that_are_followed_are_those_of_values() -> None:
    """A free size has one value wherever its name occurs; at least three in four are known."""
    known_count = unknown_count = 0
    for seed in range(200):
        drawn = draw_graph(seed)
        dims = converted_graph(drawn.model).shapes.dims
        free = dict(zip(dims["x"] or (), drawn.example, strict=True))
        for name, shape in drawn.shapes.items():
            inferred = dims[name]
            assert inferred is None or len(inferred) == len(shape), f"seed {seed}: {name}"
            for size, actual in zip(inferred or [""] * len(shape), shape, strict=True):
                unknown_count += size == ""
                known_count += size != ""
                assert size == "" or free.get(size, size) == actual, (
                    f"seed {seed}: {name} {inferred}"
                )
    assert known_count > 3 * unknown_count


def test_rows_of_sizes_are_whole_numbers_along_one_axis() -> None:
    """Neither the only row of a matrix nor a quotient in float counts as a row of sizes."""
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["sizes"]), make("Unsqueeze", ["sizes", "axis"], ["matrix"]),
        make("Gather", ["matrix", "first"], ["row"]), make("Reshape", ["x", "row"], ["same"]),
        make("Gather", ["sizes", "axis"], ["T"]), make("Gather", ["sizes", "second"], ["N"]),
        make("Cast", ["T"], ["t"], to=1), make("Cast", ["N"], ["n"], to=1),
        make("Div", ["t", "n"], ["quotient"]), make("Mul", ["quotient", "n"], ["product"]),
        make("Cast", ["product"], ["again"], to=7),
        make("Concat", ["again", "end"], ["shape"], axis=0),
        make("Reshape", ["x", "shape"], ["flat"]),
    ]  # fmt: skip
    arrays = {"axis": np.array([0]), "first": np.array(0), "second": np.array([1]),
              "end": np.array([-1])}  # fmt: skip
    model = model_of(nodes, arrays, ["same", "flat"], {"x": [5, 2, I]})
    expected = by_onnxruntime(model, np.zeros((5, 2, I), np.float32))
    assert expected is not None
    assert [list(array.shape) for array in expected] == [[5, 2, I], [5, 2 * I]]
    dims = converted_graph(model).shapes.dims
    for name, array in zip(("same", "flat"), expected, strict=True):
        inferred = dims[name] or [""] * array.ndim
        assert len(inferred) == array.ndim
        assert all(size in ("", actual) for size, actual in zip(inferred, array.shape, strict=True))


def outputs_reshaped(shape: list[int], dims: list[Any], layout: str = "TNDH") -> onnx.ModelProto:
    """Outputs of a bidirectional GRU as [T, N, D, H], and a Reshape; x has these dims."""
    case = one_node("GRU", np.random.default_rng(1), direction="bidirectional")
    case.node.input[0] = "x"
    nodes = [
        case.node,
        helper.make_node("Transpose", ["Y"], ["apart"], perm=["TDNH".index(k) for k in layout]),
        helper.make_node("Reshape", ["apart", "shape"], ["y"]),
    ]
    return model_of(nodes, {**case.tensors, "shape": np.array(shape)}, ["y"], {"x": [*dims, I]})


D = 2
RESHAPES = [
    ([T, N, D * H], [T, N]), ([N, T, D * H], [T, N]), ([N, -1, D * H], [T, N]),
    ([N, T, -1], [T, N]), ([T, -1, D * H], [T, "n"]), ([N, -1, D * H], [T, "n"]),
    ([-1, N, D * H], ["t", N]), ([-1, T, D * H], ["t", N]), ([N, -1, D * H], ["t", "n"]),
    ([N, T, D * H], ["t", "n"]), ([0, 0, -1], ["t", "n"]), ([0, -1, D * H], ["t", "n"]),
    ([-1, 0, D * H], ["t", "n"]), ([N, T, D * H], ["t", "t"]), ([T, D * N, H], [T, N]),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dims"), RESHAPES, ids=str)
@pytest.mark.parametrize("layout", ["TNDH", "NTDH"])
def test_a_reshape_behind_a_layer(shape: list[int], dims: list[Any], layout: str) -> None:
    model = outputs_reshaped(shape, dims, layout)
    assert agrees(model, (T, N, I), "example", may_refuse=False)
    if not isinstance(dims[0], int):  # for example twice the steps and half of the sequences
        for sizes in ((N, T, I), (T * N, 1, I), (1, T * N, I)):
            agrees(model, sizes, str(sizes), may_refuse=True)


def test_a_reshape_that_may_mean_either_order_is_bound_to_its_sizes() -> None:
    """Where T and N are equal in the file, both orders have the same sizes."""
    model = outputs_reshaped([4, 4, D * H], [4, 4])
    assert agrees(model, (4, 4, I), "equal", may_refuse=False)
    with pytest.raises(ValueError, match=r"x must have the shape \[4, 4, 4\]"):
        load(model)(torch.zeros(8, 2, I))


def test_declared_output_shapes_are_not_trusted() -> None:
    """The declared shape of the graph's output does not prove that T and N keep their order."""
    case = one_node("GRU", np.random.default_rng(1), direction="bidirectional")
    case.node.input[0] = "x"
    nodes = [
        case.node, helper.make_node("Transpose", ["Y"], ["apart"], perm=[0, 2, 1, 3]),
        helper.make_node("Shape", ["apart"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "order"], ["two"]),
        helper.make_node("Concat", ["two", "end"], ["shape"], axis=0),
        helper.make_node("Reshape", ["apart", "shape"], ["y"]),
    ]  # fmt: skip
    arrays = {**case.tensors, "order": np.array([1, 0]), "end": np.array([-1])}
    model = model_of(nodes, arrays, ["y"], {"x": ["t", "n", I]})
    del model.graph.output[:]
    dims = ["t", "n", D * H]
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, dims))
    assert agrees(model, (T, N, I), "claimed", may_refuse=False)


def with_state(array: np.ndarray | None, expanded: list[int] | None = None) -> onnx.ModelProto:
    """An LSTM [T, N, I] whose initial_c is a constant, or its expansion."""
    case = one_node("LSTM", np.random.default_rng(2))
    case.node.input[0] = "x"
    case.node.input.extend(["", "", "c"])
    arrays, nodes = dict(case.tensors), [case.node]
    if expanded is None:
        arrays["c"] = array
    else:
        arrays |= {"row": array, "shape": np.array(expanded)}
        nodes.insert(0, helper.make_node("Expand", ["row", "shape"], ["c"]))
    return model_of(nodes, arrays, ["Y"], {"x": [T, N, I]})


@pytest.mark.parametrize(
    ("shape", "expanded"),
    [
        ((1, N, H + 1), None), ((2, N, H), None), ((1, N + 1, H), None), ((N, H), None),
        ((1, 1, H - 2), [1, N, H - 2]), ((1, 1, 1), [2, N, H]), ((1,), [1, N, 2 * H]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_initial_state_of_another_shape(
    shape: tuple[int, ...], expanded: list[int] | None, value: float
) -> None:
    """Zeros are checked like other numbers; torch 2.13 writes such files for projections."""
    model = with_state(np.full(shape, value, np.float32), expanded)
    assert by_onnxruntime(model, np.zeros((T, N, I), np.float32)) is None
    with pytest.raises(ValueError, match=r"LSTM 'Y, Y_h, Y_c': initial_c must have"):
        load(model)
    if expanded is None and shape[:1] != (1,):
        with pytest.raises(ValueError, match=r"initial_c must have shape \[1, N, 6\], got"):
            layers_of(model)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_state_of_one_row_for_both_directions(rows: int) -> None:
    case = one_node("GRU", np.random.default_rng(3), direction="bidirectional")
    case.node.input[0] = "x"
    case.node.input.extend(["", "h"])
    expand = helper.make_node("Expand", ["row", "shape"], ["h"])
    row = np.random.default_rng(4).standard_normal((rows, 1, H)).astype(np.float32)
    arrays = {**case.tensors, "row": row, "shape": np.array([2, N, H])}
    model = model_of([expand, case.node], arrays, ["Y"], {"x": [T, N, I]})
    assert agrees(model, (T, N, I), "expanded", may_refuse=False)
    assert sum(name.startswith("start") for name, _ in load(model).named_parameters()) == 1


def test_squeeze_of_steps_requires_one_step() -> None:
    """torch's squeeze keeps a longer axis; the operator of ONNX requires size 1."""
    case = one_node("RNN", np.random.default_rng(5))
    case.node.input[0] = "x"
    arrays = {**case.tensors, "axis": np.array([0])}
    squeeze = helper.make_node("Squeeze", ["Y", "axis"], ["y"])
    model = model_of([case.node, squeeze], arrays, ["y"], {"x": ["t", N, I]})
    assert agrees(model, (1, N, I), "one step", may_refuse=False)
    with pytest.raises(ValueError, match=r"Squeeze: axes \[0\] must have size 1, got shape \[5"):
        load(model)(torch.zeros(T, N, I))
