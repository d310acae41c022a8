"""Small valid ONNX files that need much memory or work are refused while they are read.

They are loaded in a separate process with limited address space and processor time, so that a
missing guard ends that process and not the tests.
"""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests.support.onnx_graphs import by_onnxruntime
from tests.support.onnx_nodes import I, N, T, model_of, one_node
from tests.support.paths import ROOT
from unrolled.onnx import load

make = helper.make_node
MEMORY, SECONDS = 1 << 30, 60
Arrays = dict[str, np.ndarray]


def added(nodes: list[onnx.NodeProto], arrays: Arrays) -> onnx.ModelProto:
    """The input, and the constant 'h' added to it."""
    return model_of([*nodes, make("Add", ["x", "h"], ["y"])], arrays, ["y"])


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def doubled(levels: int) -> onnx.ModelProto:
    names = ["c", *(f"h{k}" for k in range(1, levels)), "h"]
    nodes = [
        make("Concat", [source, source], [target], axis=0) for source, target in pairwise(names)
    ]
    return added(nodes, {"c": ones(4)})


def filled() -> onnx.ModelProto:
    return added([make("ConstantOfShape", ["s"], ["h"])], {"s": np.array([2**20, 2**20])})


def counted() -> onnx.ModelProto:
    arrays = {"zero": np.array(0), "end": np.array(2**40), "one": np.array(1)}
    return added([make("Range", ["zero", "end", "one"], ["r"]), make("Cast", ["r"], ["h"], to=1)],
                 arrays)  # fmt: skip


def pairs(op_type: str) -> onnx.ModelProto:
    return added([make(op_type, ["a", "b"], ["h"])], {"a": ones(2**16, 1), "b": ones(1, 2**16)})


def expanded() -> onnx.ModelProto:
    arrays = {"a": ones(1), "s": np.array([2**20, 2**20])}
    return added([make("Expand", ["a", "s"], ["h"])], arrays)


def expanded_twice() -> onnx.ModelProto:
    """Each constant is small, their product is not."""
    nodes = [make("Expand", ["a", "s"], ["b"]), make("Transpose", ["b"], ["c"], perm=[1, 0]),
             make("Softmax", ["b"], ["d"]), make("Softmax", ["c"], ["e"], axis=0),
             make("MatMul", ["d", "e"], ["h"])]  # fmt: skip
    return added(nodes, {"a": ones(1), "s": np.array([2**20, 1])})


def gathered() -> onnx.ModelProto:
    nodes = [make("Gather", ["a", "i"], ["g"]), make("Gather", ["g", "i"], ["h"])]
    return added(nodes, {"a": ones(2, 2**14), "i": np.zeros(2**14, np.int64)})


def joined_often() -> onnx.ModelProto:
    return added([make("Concat", ["c"] * 20_000, ["h"], axis=0)], {"c": ones(10**5)})


def sliced_often() -> onnx.ModelProto:
    names = [f"v{k}" for k in range(5000)]
    nodes = [make("Slice", ["a", "s", "e"], [name]) for name in names]
    arrays = {"a": ones(300_000), "s": np.array([0]), "e": np.array([1])}
    return added([*nodes, make("Concat", names, ["h"], axis=0)], arrays)


def one_weight_often() -> onnx.ModelProto:
    names = [f"y{k}" for k in range(2000)]
    nodes = [make("GRU", ["x", "W", "R"], [name], hidden_size=300) for name in names]
    nodes.append(make("Concat", names, ["y"], axis=0))
    return model_of(nodes, {"W": ones(1, 900, I), "R": ones(1, 900, 300)}, ["y"])


def functions(levels: int) -> onnx.ModelProto:
    """Each calls the one before it twice."""
    model = model_of([make(f"f{levels}", ["x"], ["y"], domain="own")], {}, ["y"])
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    for k in range(levels + 1):
        nodes = [make("Relu", ["x"], ["y"])]
        if k:
            nodes = [make(f"f{k - 1}", [a], [b], domain="own") for a, b in ("xm", "my")]
        model.functions.append(helper.make_function("own", f"f{k}", ["x"], ["y"], nodes, versions))
    model.opset_import.append(versions[1])
    return model


def state_levels(levels: int) -> onnx.ModelProto:
    """Rows of a state, sliced and concatenated repeatedly."""
    case = one_node("GRU", np.random.default_rng(0))
    case.node.input[0] = "x"
    nodes, name = [case.node], "Y_h"
    for k in range(levels):
        nodes += [make("Slice", [name, "zero", "one", "zero"], [f"s{k}"]),
                  make("Concat", [f"s{k}", f"s{k}"], [f"h{k}"], axis=0)]  # fmt: skip
        name = f"h{k}"
    arrays = {**case.tensors, "zero": np.array([0]), "one": np.array([1])}
    return model_of(nodes, arrays, [name], {"x": [T, N, I]})


def size_levels(levels: int) -> onnx.ModelProto:
    """A size that is squared repeatedly, and a shape that doubles."""
    names = ["n", *(f"n{k}" for k in range(levels))]
    nodes = [make("Shape", ["x"], ["n"], start=2)]
    nodes += [make("Mul", [source, source], [target]) for source, target in pairwise(names)]
    rows = ["n", *(f"r{k}" for k in range(levels))]
    nodes += [
        make("Concat", [source, source], [target], axis=0) for source, target in pairwise(rows)
    ]
    nodes.append(make("Reshape", ["x", rows[-1]], ["y"]))
    return model_of(nodes, {}, ["y"])


REFUSED: dict[str, Callable[[], onnx.ModelProto]] = {
    "doubled": lambda: doubled(34), "filled": filled, "counted": counted, "expanded": expanded,
    "sums of all pairs": lambda: pairs("Add"), "products of all pairs": lambda: pairs("MatMul"),
    "expanded twice": expanded_twice, "gathered": gathered, "joined often": joined_often,
    "sliced often": sliced_often, "one weight often": one_weight_often,
    "functions": lambda: functions(40),
}  # fmt: skip
LOADED: dict[str, Callable[[], onnx.ModelProto]] = {
    "a few doubled": lambda: doubled(8), "a few functions": lambda: functions(4),
    "levels of states": lambda: state_levels(1000), "levels of sizes": lambda: size_levels(60),
}  # fmt: skip


def main(folder: str) -> None:
    """Load the files of a folder and print the result of each."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    results: dict[str, Any] = {}
    for path in sorted(Path(folder).iterdir()):
        try:
            load(path)
            results[path.stem] = "loaded"
        except ValueError as error:
            results[path.stem] = str(error)
    print(json.dumps(results))


@pytest.mark.slow
def test_files_that_need_too_much_memory_or_work(tmp_path: Path) -> None:
    for name, model in (REFUSED | LOADED).items():
        (tmp_path / f"{name}.onnx").write_bytes(model().SerializeToString())
    process = subprocess.run(
        [sys.executable, "-m", __name__, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    results = json.loads(process.stdout)
    for name in REFUSED:
        assert re.search(r"memory and work .*\d+ bytes", results[name]), name
    assert {name: results[name] for name in LOADED} == dict.fromkeys(LOADED, "loaded")


def test_what_is_folded_is_computed() -> None:
    """Operators of constants give the constants of ONNX Runtime."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {
        "a": rng.standard_normal((3, 4)).astype(np.float32), "s": np.array([2, 3, 4]),
        "zero": np.array(0), "three": np.array(3), "one": np.array(1), "axis": np.array([1]),
        "i": np.array([[2, -1]]), "W": rng.standard_normal((4, 2)).astype(np.float32),
        "c": rng.standard_normal(2).astype(np.float32),
    }  # fmt: skip
    half = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.5])
    nodes = [
        make("Expand", ["a", "s"], ["v0"]), make("ConstantOfShape", ["s"], ["v1"], value=half),
        make("Range", ["zero", "three", "one"], ["r"]), make("Cast", ["r"], ["v2"], to=1),
        make("Softmax", ["a"], ["v3"], axis=0), make("ReduceMean", ["a", "axis"], ["v4"]),
        make("MatMul", ["a", "W"], ["v5"]), make("Gemm", ["a", "W", "c"], ["v6"]),
        make("Gather", ["a", "i"], ["v7"]), make("Split", ["a"], ["v8", "v9"], axis=1,
                                                 num_outputs=2),
        make("Elu", ["a"], ["v10"], alpha=0.3), make("CastLike", ["r", "a"], ["v11"]),
        make("Flatten", ["v0"], ["v12"], axis=2), make("ReduceMax", ["v0", "axis"], ["v13"],
                                                       keepdims=0),
    ]  # fmt: skip
    names = [f"v{k}" for k in range(14)]
    model = model_of([*nodes, make("Relu", ["x"], ["y"])], arrays, ["y", *names])
    x = rng.standard_normal((2, 2, I)).astype(np.float32)
    expected = by_onnxruntime(model, x)
    assert expected is not None
    module = load(model)
    assert {node.op for node in module.graph.nodes if node.target is not torch.relu} == {
        "placeholder", "get_attr", "output",
    }  # fmt: skip
    for name, result, expected_result in zip(
        ["y", *names], module(torch.from_numpy(x)), expected, strict=True
    ):
        np.testing.assert_allclose(result.numpy(), expected_result, rtol=1e-6, err_msg=name)


if __name__ == "__main__":
    main(sys.argv[1])
