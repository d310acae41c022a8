#!/usr/bin/env bash
# onnx 1.23.2: onnx.reference, the reference implementation of the operators, ignores clip and
# sequence_lens of RNN, GRU and LSTM, without a message: it cannot judge a runtime by them.
#
# Seen: "difference that they make: clip 0.000, sequence_lens 0.000".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

T, N, I, H = 5, 2, 3, 4
rng = np.random.default_rng(0)
x, W, R = (rng.uniform(-2, 2, s).astype("float32") for s in [(T, N, I), (1, H, I), (1, H, H)])


def run(lengths=(T, T), **attributes):
    node = helper.make_node("RNN", ["x", "W", "R", "", "l"], ["y"], hidden_size=H, **attributes)
    weights = {"W": W, "R": R, "l": np.array(lengths, "int32")}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


clip, lengths = abs(run(clip=0.1) - run()).max(), abs(run(lengths=(T, 2)) - run()).max()
print(f"difference that they make: clip {clip:.3f}, sequence_lens {lengths:.3f}")
sys.exit(not clip == lengths == 0)
PYTHON
