#!/usr/bin/env bash
# OpenVINO 2026.4.1 and tract 0.23.9: a recurrent node of ONNX in both directions whose attribute
# activations names other functions for the second direction is computed with those of the first
# in both, without a message. (ONNX Runtime 1.31 heeds them.)
#
# Seen: "difference that Sigmoid for Tanh in the second direction makes: OpenVINO 0.000, tract
# 0.000, ONNX Runtime 1.419".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1 \
    tract==0.23.9 onnxruntime==1.31.1
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
import tract
from onnx import TensorProto, helper, numpy_helper

T, N, I, H = 5, 2, 3, 4
rng = np.random.default_rng(0)
x, W, R = (rng.uniform(-1, 1, s).astype("float32") for s in [(T, N, I), (2, H, I), (2, H, H)])


def save(functions):
    node = helper.make_node(
        "RNN", ["x", "W", "R"], ["y"], hidden_size=H, direction="bidirectional",
        activations=functions,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 2, N, H])],
        [numpy_helper.from_array(W, "W"), numpy_helper.from_array(R, "R")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), sys.argv[1])


def run():
    """The outputs of the saved file in each runtime."""
    compiled = openvino.Core().compile_model(
        sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return {
        "OpenVINO": compiled({"x": x})[compiled.output(0)],
        "tract": tract.onnx().load(sys.argv[1]).into_model().into_runnable().run([x])[0].to_numpy(),
        "ONNX Runtime": onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": x})[0],
    }


save(["Tanh", "Tanh"])
alike = run()
save(["Tanh", "Sigmoid"])
seen = {name: abs(y - alike[name]).max() for name, y in run().items()}
shown = ", ".join(f"{name} {difference:.3f}" for name, difference in seen.items())
print(f"difference that Sigmoid for Tanh in the second direction makes: {shown}")
sys.exit(not (seen["OpenVINO"] == seen["tract"] == 0 and seen["ONNX Runtime"] > 0.1))
PYTHON
