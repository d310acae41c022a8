#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: a Scan of ONNX whose body does not read its scan input (a recurrent step
# that only its own state drives) makes one step, whatever the length of that input, and its output
# has one row; no message says so. ONNX Runtime 1.31 makes all steps.
#
# Seen: "start 1, doubled in 5 steps: ONNX Runtime 32 with 5 rows, OpenVINO 2 with 1 rows".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet \
    numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1 onnxruntime==1.31.1
"$place/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper


def info(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


body = helper.make_graph(
    [
        helper.make_node("Add", ["before", "before"], ["after"]),
        helper.make_node("Identity", ["after"], ["y_t"]),
    ],
    "body",
    [info("before", 1), info("x_t", 1)],
    [info("after", 1), info("y_t", 1)],
)
node = helper.make_node("Scan", ["start", "x"], ["end", "y"], body=body, num_scan_inputs=1)
graph = helper.make_graph(
    [node], "g", [info("start", 1), info("x", 5, 1)], [info("end", 1), info("y", 5, 1)]
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
feed = {"start": np.ones(1, "float32"), "x": np.zeros((5, 1), "float32")}
serialized = model.SerializeToString()
compiled = openvino.Core().compile_model(openvino.Core().read_model(serialized), "CPU")
found = {
    "ONNX Runtime": onnxruntime.InferenceSession(serialized).run(None, feed),
    "OpenVINO": list(compiled(feed).values()),
}
seen = [(name, end.item(), len(y)) for name, (end, y) in found.items()]
shown = ", ".join(f"{name} {end:g} with {rows} rows" for name, end, rows in seen)
print(f"start 1, doubled in 5 steps: {shown}")
sys.exit([row[1:] for row in seen] != [(32, 5), (2, 1)])
PYTHON
