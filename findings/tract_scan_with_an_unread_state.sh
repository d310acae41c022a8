#!/usr/bin/env bash
# tract 0.23.9: a Scan of ONNX whose body gives a state its next value without reading the last
# one (a recurrent layer's output that is not fed back) is refused; onnx.reference and ONNX
# Runtime run it.
#
# Seen: "body that reads its state: runs; that does not: refused".
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
from onnx import TensorProto, helper


def outcome(reads):
    row = [2, 3]
    body = helper.make_graph(
        [
            helper.make_node("Add", ["x_t", "before"], ["sum"])
            if reads
            else helper.make_node("Tanh", ["x_t"], ["sum"]),
            helper.make_node("Identity", ["sum"], ["after"]),
            helper.make_node("Identity", ["sum"], ["y_t"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, row) for name in ("before", "x_t")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, row) for name in ("after", "y_t")],
    )
    node = helper.make_node("Scan", ["start", "x"], ["end", "y"], body=body, num_scan_inputs=1)
    graph = helper.make_graph(
        [node], "g",
        [
            helper.make_tensor_value_info("start", TensorProto.FLOAT, row),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, *row]),
        ],
        [
            helper.make_tensor_value_info("end", TensorProto.FLOAT, row),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, *row]),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    try:
        run = tract.onnx().load(sys.argv[1]).into_model().into_runnable()
        run.run([np.zeros(row, "float32"), np.ones((5, *row), "float32")])
    except tract.TractError:
        return "refused"
    return "runs"


seen = outcome(True), outcome(False)
print(f"body that reads its state: {seen[0]}; that does not: {seen[1]}")
sys.exit(seen != ("runs", "refused"))
PYTHON
