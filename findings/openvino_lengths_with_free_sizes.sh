#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: an RNN, GRU or LSTM node of ONNX ignores its input sequence_lens as soon
# as T or N is free in the file, and runs into the padding without a message. With both fixed the
# same node heeds it. A file that an exporter writes has both free as a rule.
#
# Seen: "sequence of length 2 of 5, outputs behind its end: fixed 0.000, free T 0.639".
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
x, W, R = (rng.uniform(-1, 1, s).astype("float32") for s in [(T, N, I), (1, H, I), (1, H, H)])


def behind_the_end(steps):
    node = helper.make_node("RNN", ["x", "W", "R", "", "lengths"], ["y"], hidden_size=H)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, N, I]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, [N]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [steps, 1, N, H])
    weights = [numpy_helper.from_array(W, "W"), numpy_helper.from_array(R, "R")]
    graph = helper.make_graph([node], "g", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    y = run(model, {"x": x, "lengths": np.array([T, 2], "int32")})
    return abs(y[2:, 0, 1]).max()

def run(model, feed):
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    return compiled(feed)[compiled.output(0)]


fixed, free = behind_the_end(T), behind_the_end("T")
print(f"sequence of length 2 of {T}, outputs behind its end: fixed {fixed:.3f}, free T {free:.3f}")
sys.exit(not (fixed == 0 and free > 0.1))
PYTHON
