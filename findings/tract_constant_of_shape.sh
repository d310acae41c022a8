#!/usr/bin/env bash
# tract 0.23.9: ConstantOfShape without the attribute value, zeros in float32 by its definition,
# is taken for float64: a file that names the type of its result is refused. torch.onnx.export
# (2.13) writes the initial states that a model makes so.
#
# Seen: "type of the result in the file: not named runs, named refused".
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


def outcome(types):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["x", "zeros"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], value_info=types)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    try:
        run = tract.onnx().load(sys.argv[1]).into_model().into_runnable()
    except tract.TractError as error:
        return "refused" if "F64" in str(error) else str(error)
    made = run.run([np.ones((2, 3), "float32")])[0].to_numpy()
    return "runs" if (made == 1).all() else str(made)


named = [helper.make_tensor_value_info("zeros", TensorProto.FLOAT, ["N", 3])]
seen = outcome([]), outcome(named)
print(f"type of the result in the file: not named {seen[0]}, named {seen[1]}")
sys.exit(seen != ("runs", "refused"))
PYTHON
