#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), module dnn: of a GRU node of ONNX,
# direction="reverse" runs forward, clip and sequence_lens are ignored, each without a message;
# RNN is refused.
#
# Seen: "differences that they make: reverse 0.000, clip 0.000, sequence_lens 0.000".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 opencv-python-headless==5.0.0.93
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import cv2
import numpy as np
from onnx import TensorProto, helper, numpy_helper

T, N, I, H = 5, 2, 3, 4
rng = np.random.default_rng(0)
x, W, R = (rng.uniform(-2, 2, s).astype("float32") for s in [(T, N, I), (1, 3 * H, I), (1, 3 * H, H)])


def run(lengths=None, **attributes):
    weights = {"W": W, "R": R}
    names = ["x", "W", "R"]
    if lengths is not None:
        weights["l"] = np.array(lengths, "int32")
        names += ["", "l"]
    node = helper.make_node("GRU", names, ["y"], hidden_size=H, **attributes)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
    net.setInput(x, "x")
    return net.forward("y").copy()


plain = run()
changed = {
    "reverse": run(direction="reverse"),
    "clip": run(clip=0.1),
    "sequence_lens": run(lengths=(T, 2)),
}
seen = {name: abs(y - plain).max() for name, y in changed.items()}
shown = ", ".join(f"{name} {difference:.3f}" for name, difference in seen.items())
print(f"differences that they make: {shown}")
sys.exit(any(seen.values()))
PYTHON
