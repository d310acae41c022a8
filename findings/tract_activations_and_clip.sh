#!/usr/bin/env bash
# tract 0.23.9: the attributes activations and clip of the recurrent operators of ONNX are ignored
# without a message; so is input_forget. A torch.nn.RNN(nonlinearity="relu") gives the numbers of
# one with tanh.
#
# Seen: "difference that they make: Relu for Tanh 0.000, clip 0.000".
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

T, N, I, H = 5, 2, 3, 4
rng = np.random.default_rng(0)
x, W, R = (rng.uniform(-2, 2, s).astype("float32") for s in [(T, N, I), (1, H, I), (1, H, H)])


def run(**attributes):
    node = helper.make_node("RNN", ["x", "W", "R"], ["y"], hidden_size=H, **attributes)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
        [numpy_helper.from_array(W, "W"), numpy_helper.from_array(R, "R")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), sys.argv[1])
    model = tract.onnx().load(sys.argv[1]).into_model().into_runnable()
    return model.run([x])[0].to_numpy()


relu = abs(run(activations=["Relu"]) - run()).max()
clip = abs(run(clip=0.1) - run()).max()
print(f"difference that they make: Relu for Tanh {relu:.3f}, clip {clip:.3f}")
sys.exit(not relu == clip == 0)
PYTHON
