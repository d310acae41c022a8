#!/usr/bin/env bash
# ONNX Runtime 1.31.1: functions of the recurrent operators for which a node gives no alpha do not
# take the default of "corresponding ONNX operators", as the definition says: ThresholdedRelu
# takes 0 (its operator has 1), Affine 0 (its operator, since removed, had 1). And ThresholdedRelu
# at x = alpha gives 0, where the recurrent operators' definition says "x if x >= alpha".
#
# Seen: "RNN of 0.5 without alpha: ThresholdedRelu 0.5, Affine 0.0; the operator ThresholdedRelu
# 0.0; RNN with alpha 0.5 of 0.5: 0.0".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1
"$place/venv/bin/python" - "$place/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ONE, ZERO = np.ones((1, 1, 1), "float32"), np.zeros((1, 1, 1), "float32")


def compute(node, rank):
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1] * rank)],
        [numpy_helper.from_array(ONE, "W"), numpy_helper.from_array(ZERO, "R")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": 0.5 * ONE})[0].item()


def rnn(function, **attributes):
    names = ["x", "W", "R"]
    return compute(
        helper.make_node("RNN", names, ["y"], hidden_size=1, activations=[function], **attributes),
        4,
    )


alone = compute(helper.make_node("ThresholdedRelu", ["x"], ["y"]), 3)
tie = rnn("ThresholdedRelu", activation_alpha=[0.5])
seen = rnn("ThresholdedRelu"), rnn("Affine"), alone, tie
print(
    f"RNN of 0.5 without alpha: ThresholdedRelu {seen[0]}, Affine {seen[1]}; the operator "
    f"ThresholdedRelu {seen[2]}; RNN with alpha 0.5 of 0.5: {seen[3]}"
)
sys.exit(seen != (0.5, 0.0, 0.0, 0.0))
PYTHON
