"""ONNX files that are damaged, hostile or not supported raise a ValueError with the reason."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests.support.onnx_nodes import H, I, N, T, model_of, one_node
from tests.support.tolerances import assert_equal
from unrolled import cells, nn
from unrolled.io import FileError
from unrolled.onnx import RefusedError, export, layers_of, load
from unrolled.onnx.backend import Backend


def test_weights_beside_the_file(tmp_path: Path) -> None:
    case = one_node("GRU", np.random.default_rng(0))
    onnx.save(
        case.model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    assert (tmp_path / "weights.bin").exists()
    x = torch.from_numpy(case.feeds["X"])
    plain = one_node("GRU", np.random.default_rng(0))
    assert_equal(load(tmp_path / "model.onnx")(x)[0], load(plain.model)(x)[0])
    bare = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    with pytest.raises(ValueError, match="model must contain its weights, got 'W'"):
        load(bare)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(FileError, match=r"model\.onnx: "):
        load(tmp_path / "model.onnx")
    (tmp_path / "secret").write_bytes(bytes(10_000))
    for location in ("../secret", str(tmp_path / "secret")):
        for tensor in bare.graph.initializer:
            tensor.external_data[0].value = location
        (tmp_path / "inside").mkdir(exist_ok=True)
        (tmp_path / "inside" / "model.onnx").write_bytes(bare.SerializeToString())
        with pytest.raises(FileError, match=r"model\.onnx: "):
            load(tmp_path / "inside" / "model.onnx")


def test_constants_beside_the_file(tmp_path: Path) -> None:
    """Tensors in attributes may be in other files, too: they are read and counted like weights."""
    tensor = helper.make_tensor("c", onnx.TensorProto.FLOAT, [I], np.zeros(I, np.float32))
    case = model_of(
        [helper.make_node("Constant", [], ["c"], value=tensor),
         helper.make_node("Add", ["x", "c"], ["y"])], {}, ["y"],
    )  # fmt: skip
    value = case.graph.node[0].attribute[0].t
    value.ClearField("float_data")
    value.data_location = onnx.TensorProto.EXTERNAL
    value.external_data.add(key="location", value="weights.bin")
    numbers = np.arange(I, dtype=np.float32)
    (tmp_path / "weights.bin").write_bytes(numbers.tobytes())
    (tmp_path / "model.onnx").write_bytes(case.SerializeToString())
    x = torch.zeros(2, 3, I)
    assert_equal(load(tmp_path / "model.onnx")(x), x + torch.from_numpy(numbers))
    with pytest.raises(ValueError, match="model must contain its weights, got 'c'"):
        load(case)
    repeated = onnx.ModelProto()
    repeated.CopyFrom(case)
    value.dims[0] = 2**14
    (tmp_path / "weights.bin").write_bytes(bytes(2**16))
    for k in range(1500):
        repeated.graph.node.add().CopyFrom(case.graph.node[0])
        repeated.graph.node[-1].output[0] = f"c{k}"
    (tmp_path / "model.onnx").write_bytes(repeated.SerializeToString())
    with pytest.raises(FileError, match="memory and work"):
        load(tmp_path / "model.onnx")


def test_files_that_are_missing_or_not_onnx(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(FileError, match=r"text\.onnx: "):
        load(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(FileError, match=r"empty\.onnx: "):
        load(tmp_path / "empty.onnx")
    with pytest.raises(TypeError, match=r"source must be a path or an onnx\.ModelProto, got int"):
        load(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("cut", range(4))
def test_damaged_files_load_or_raise(cut: int, tmp_path: Path) -> None:
    """Cut at random places, or with random bytes changed: a module, or a ValueError."""
    path, refused = tmp_path / "model.onnx", 0
    if cut < 3:
        op_type = ("RNN", "GRU", "LSTM")[cut]
        case = one_node(op_type, np.random.default_rng(0), ("B", "sequence_lens", "initial_h"))
        path.write_bytes(case.model.SerializeToString())
    else:  # a Scan
        export(nn.Recurrent(cells.JANET, 2, 3), path, lengths=True)
    original, rng = path.read_bytes(), np.random.default_rng(cut)
    for trial in range(150):
        data = bytearray(original)
        if trial % 3 == 0:
            data = data[: rng.integers(len(data))]
        else:
            # Half of the bytes are weights, where any change is legal: change what is around them.
            for place in rng.integers(0, len(data), 3 if trial % 3 == 1 else 40):
                data[place if rng.random() < 0.3 else place % 220] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            load(path)
            layers_of(path)
        except ValueError:
            refused += 1
    assert refused > 60


def test_a_constant_that_grows_is_not_made() -> None:
    """Two small vectors must not become a matrix of 2^40 numbers."""
    column = np.ones((2**20, 1), np.float32)
    case = one_node("RNN", np.random.default_rng(0))
    nodes = [
        helper.make_node("Add", ["many", "turned"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["W"]), case.node,
    ]  # fmt: skip
    arrays = {k: v for k, v in case.tensors.items() if k != "W"}
    arrays |= {"many": column, "turned": column.T}
    model = model_of(nodes, arrays, ["Y"], {"X": [T, N, I]})
    with pytest.raises(ValueError, match=r"(W|axes) must be constant"):
        load(model)


def test_weights_that_the_graph_computes_are_refused() -> None:
    case = one_node("RNN", np.random.default_rng(0))
    case.node.input[1] = "x"
    with pytest.raises(RefusedError, match=r"RNN .*: W must be constant"):
        load(model_of([case.node], case.tensors, ["Y"], {"X": [T, N, I], "x": [1, H, I]}))


def test_the_backend_requires_all_inputs() -> None:
    case = one_node("RNN", np.random.default_rng(0))
    prepared = Backend.prepare(case.model)
    with pytest.raises(ValueError, match="run: inputs must be 1 arrays, X, got 0"):
        prepared.run([])
    with pytest.raises(ValueError, match="run: inputs must include X, got no 'X'"):
        prepared.run({})
    with pytest.raises(ValueError, match="prepare: device must be 'CPU', got 'CUDA'"):
        Backend.prepare(case.model, "CUDA")
    assert not Backend.supports_device("CUDA")
    gelu = helper.make_node("Gelu", ["x"], ["y"])
    assert not Backend.is_compatible(model_of([gelu], {}, ["y"], opset=20))


@pytest.mark.parametrize("name", ["lambda", "self", "None", "0", "x/y", "größe", "torch", "rnn"])
def test_inputs_of_any_name(name: str) -> None:
    case = one_node("RNN", np.random.default_rng(0))
    expected = load(case.model)(torch.from_numpy(case.feeds["X"]))
    case.model.graph.input[0].name = case.node.input[0] = name
    results = load(case.model)(torch.from_numpy(case.feeds["X"]))
    for result, expected_result in zip(results, expected, strict=True):
        assert_equal(result, expected_result)


def scan() -> onnx.ModelProto:
    """A Scan as export writes it, to be damaged."""
    layer = nn.Recurrent(cells.JANET, 2, 3)
    with tempfile.TemporaryDirectory() as folder:
        export(layer, f"{folder}/scan.onnx")
        return onnx.load(f"{folder}/scan.onnx")


def body(model: onnx.ModelProto) -> onnx.GraphProto:
    node = next(node for node in model.graph.node if node.op_type == "Scan")
    return next(attribute.g for attribute in node.attribute if attribute.name == "body")


def unknown(model: onnx.ModelProto) -> None:
    next(node for node in body(model).node if node.op_type == "Sigmoid").op_type = "Erf"


def other_output(model: onnx.ModelProto) -> None:
    body(model).node[-1].input[0] = body(model).input[0].name


def backward_output(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Scan")
    attribute = next(
        attribute for attribute in node.attribute if attribute.name == "scan_output_directions"
    )
    attribute.ints[0] = 1


def other_sequence(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Scan").input[-1] = "x"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unknown, "Scan '.*': operators must be products with weights or .*, got Erf"),
        (other_output, "the output of the body must be its first state"),
        (backward_output, "steps must go along the first axis in one direction"),
        (other_sequence, "its sequence must be a product with weights"),
    ],
)
def test_a_scan_that_is_not_a_cell_raises(
    spoil: Callable[[onnx.ModelProto], None], message: str
) -> None:
    model = scan()
    load(model)
    spoil(model)
    with pytest.raises(ValueError, match=message):
        load(model)
