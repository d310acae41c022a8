#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: a recurrent node of ONNX with layout=1 (batch first) is computed as with
# layout=0: x [N, T, I] is taken for [T, N, I], without a message. (With initial states and fixed
# sizes such a node is refused. ONNX Runtime 1.31 always refuses it.)
#
# Seen: "shape (2, 1, 5, 4), wanted (2, 5, 1, 4); the numbers of layout=0: True".
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

T, N, I, H = 5, 2, 3, 4
rng = np.random.default_rng(0)
x, W, R = (rng.uniform(-1, 1, s).astype("float32") for s in [(N, T, I), (1, H, I), (1, H, H)])


def rnn(sizes, shape, layout):
    node = helper.make_node("RNN", ["x", "W", "R"], ["y"], hidden_size=H, layout=layout)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*sizes, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(W, "W"), numpy_helper.from_array(R, "R")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

def run(model, feed):
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    return compiled(feed)[compiled.output(0)]


y = run(rnn((N, T), (N, T, 1, H), 1), {"x": x})
plain = run(rnn((N, T), (N, 1, T, H), 0), {"x": x})
same = np.array_equal(y, plain)
print(f"shape {y.shape}, wanted {(N, T, 1, H)}; the numbers of layout=0: {same}")
sys.exit(not same)
PYTHON
