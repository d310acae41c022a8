#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: two RNN, GRU or LSTM nodes of ONNX that read the same x, one forward and
# one in reverse, are fused into one node in both directions, which gives other numbers where N >
# 1. Each node in a file by itself is right.
#
# Seen: "off from each node by itself: N=1 0.00000, N=3 0.95666".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import numpy as np
import openvino
from onnx import TensorProto, helper, numpy_helper

T, I, H = 5, 3, 4
rng = np.random.default_rng(0)


def draw(*shape):
    return rng.uniform(-1, 1, shape).astype("float32")


widths = {"W": I, "R": H}
weights = {f"{k}_{d}": draw(1, 3 * H, width) for k, width in widths.items() for d in "fr"}


def gru(directions, N):
    """The outputs [T, D, N, H] of nodes in the directions, one behind the other."""
    nodes = [
        helper.make_node(
            "GRU", ["x", f"W_{d[0]}", f"R_{d[0]}"], [f"y_{d}"], hidden_size=H, direction=d
        )
        for d in directions
    ]
    nodes.append(helper.make_node("Concat", [f"y_{d}" for d in directions], ["y"], axis=1))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, len(directions), N, H])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

def run(model, feed):
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    return compiled(feed)[compiled.output(0)]


def off(N):
    feed = {"x": draw(T, N, I)}
    both = run(gru(["forward", "reverse"], N), feed)
    alone = [run(gru([direction], N), feed) for direction in ("forward", "reverse")]
    return abs(both - np.concatenate(alone, 1)).max()


seen = off(1), off(3)
print(f"off from each node by itself: N=1 {seen[0]:.5f}, N=3 {seen[1]:.5f}")
sys.exit(not (seen[0] < 1e-5 and seen[1] > 0.1))
PYTHON
