#!/usr/bin/env bash
# tract 0.23.9: an LSTM node of ONNX in both directions whose N is free and whose initial states are
# zeros that the file computes for that N, as PyTorch's TorchScript exporter writes an nn.LSTM, loads
# and is refused when it runs with N > 1. The same in one direction runs, as does a GRU in both.
#
# Seen: "LSTM forward runs, LSTM bidirectional refused, GRU bidirectional runs".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 tract==0.23.9
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import tract
from onnx import TensorProto, helper, numpy_helper

T, N, I, H = 5, 3, 2, 4
rng = np.random.default_rng(0)


def outcome(kind, direction):
    D, gates = (2 if direction == "bidirectional" else 1), {"LSTM": 4, "GRU": 3}[kind]
    constants = {
        "W": rng.uniform(-1, 1, (D, gates * H, I)).astype("float32"),
        "R": rng.uniform(-1, 1, (D, gates * H, H)).astype("float32"),
        "zero": np.zeros((1, 1, 1), "float32"),
        "directions": np.array([D]),
        "width": np.array([H]),
    }
    states = ["state"] * (2 if kind == "LSTM" else 1)
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=1, end=2),
        helper.make_node("Concat", ["directions", "rows", "width"], ["shape"], axis=0),
        helper.make_node("Expand", ["zero", "shape"], ["state"]),
        helper.make_node(
            kind, ["x", "W", "R", "", "", *states], ["y"], hidden_size=H, direction=direction
        ),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "N", I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", D, "N", H])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    run = tract.onnx().load(sys.argv[1]).into_model().into_runnable()
    try:
        run.run([np.ones((T, N, I), "float32")])
    except tract.TractError:
        return "refused"
    return "runs"


cases = [("LSTM", "forward"), ("LSTM", "bidirectional"), ("GRU", "bidirectional")]
seen = [outcome(*case) for case in cases]
print(", ".join(f"{' '.join(case)} {found}" for case, found in zip(cases, seen)))
sys.exit(seen != ["runs", "refused", "runs"])
PYTHON
