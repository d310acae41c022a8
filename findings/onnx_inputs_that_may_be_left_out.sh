#!/usr/bin/env bash
# An input of an ONNX graph that is an initializer, too, may be left out or handed in (ONNX
# Runtime 1.31.1 takes it, as overridable initializer). onnxsim 0.8.1, onnxslim 0.1.98, OpenVINO
# 2026.4.1 and tract 0.23.9 take it for a constant: the initial state of a recurrent node can no
# longer be handed in.
#
# Seen: "inputs: the file and ONNX Runtime x h; onnxsim x; onnxslim x; OpenVINO x; tract x".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1 \
    tract==0.23.9 onnxruntime==1.31.1 onnxsim==0.8.1 onnxslim==0.1.98
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import onnxsim
import onnxslim
import openvino
import tract
from onnx import TensorProto, helper, numpy_helper

T, N, I, H = 5, 1, 3, 4
rng = np.random.default_rng(0)
W, R = (rng.uniform(-1, 1, s).astype("float32") for s in [(1, 3 * H, I), (1, 3 * H, H)])
node = helper.make_node("GRU", ["x", "W", "R", "", "", "h"], ["y"], hidden_size=H)
zeros = np.zeros((1, N, H), "float32")
graph = helper.make_graph(
    [node], "g",
    [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, I]),
        helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, N, H]),
    ],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
    [numpy_helper.from_array(a, name) for name, a in (("W", W), ("R", R), ("h", zeros))],
)  # fmt: skip
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])

session = onnxruntime.InferenceSession(sys.argv[1])
loaded = tract.onnx().load(sys.argv[1])
seen = {
    "the file": [value.name for value in graph.input],
    "ONNX Runtime": [
        value.name for value in session.get_inputs() + session.get_overridable_initializers()
    ],
    "onnxsim": [value.name for value in onnxsim.simplify(onnx.load(sys.argv[1]))[0].graph.input],
    "onnxslim": [value.name for value in onnxslim.slim(onnx.load(sys.argv[1])).graph.input],
    "OpenVINO": [value.any_name for value in openvino.Core().read_model(sys.argv[1]).inputs],
    "tract": [loaded.input_name(k) for k in range(loaded.input_count())],
}
print("inputs: " + "; ".join(f"{name} {' '.join(names)}" for name, names in seen.items()))
sys.exit(list(seen.values()) != [["x", "h"]] * 2 + [["x"]] * 4)
PYTHON
