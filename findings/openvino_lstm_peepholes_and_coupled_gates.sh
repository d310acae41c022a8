#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: an LSTM node of ONNX with peepholes (input P), or with the attribute
# input_forget, is computed as one without, and no message says so. (ONNX Runtime 1.31 heeds
# both.)
#
# Seen: "largest difference that they make: peepholes 0.000 (ONNX Runtime 0.065), input_forget
# 0.000 (ONNX Runtime 0.069)".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1 \
    onnxruntime==1.31.1
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

T, N, I, H = 5, 2, 3, 4
rng = np.random.default_rng(0)
shapes = {"x": (T, N, I), "W": (1, 4 * H, I), "R": (1, 4 * H, H), "P": (1, 3 * H)}
arrays = {name: rng.uniform(-1, 1, shape).astype("float32") for name, shape in shapes.items()}


def lstm(peepholes=False, **attributes):
    names = ["x", "W", "R", *([""] * 4 + ["P"] if peepholes else [])]
    node = helper.make_node("LSTM", names, ["y"], hidden_size=H, **attributes)
    weights = [numpy_helper.from_array(arrays[name], name) for name in names[1:] if name]
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

def run(model, feed):
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    return compiled(feed)[compiled.output(0)]


def run_ort(model, feed):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0]


def difference(compute, **options):
    feed = {"x": arrays["x"]}
    return abs(compute(lstm(**options), feed) - compute(lstm(), feed)).max()


peepholes = difference(run, peepholes=True), difference(run_ort, peepholes=True)
coupled = difference(run, input_forget=1), difference(run_ort, input_forget=1)
print(
    f"largest difference that they make: peepholes {peepholes[0]:.3f} (ONNX Runtime "
    f"{peepholes[1]:.3f}), input_forget {coupled[0]:.3f} (ONNX Runtime {coupled[1]:.3f})"
)
sys.exit(not (peepholes[0] == coupled[0] == 0 and min(peepholes[1], coupled[1]) > 0.01))
PYTHON
