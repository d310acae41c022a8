#!/usr/bin/env bash
# torch 2.13.0, CPU build, with onnxscript 0.7.2: torch.onnx.export(…, dynamo=True) writes
# torch.nn.LSTM(proj_size=P) as one LSTM operator of hidden size P. The projection weight_hr_l0 is
# not in the file, the first 4·P of the 4·H rows of the weights are read as the four gates, and the
# initial cell state keeps its width H. The exporter says nothing; onnx.checker accepts the file
# unless full_check is asked for; ONNX Runtime 1.31.1 makes a session of it and refuses the first
# run. The operator LSTM of ONNX has no projection, and the older exporter (dynamo=False) refuses
# such a layer by name.
#
# Seen: "hidden_size 3, initial_c [1, 2, 6], projection in the file: False, checker: accepted,
# ONNX Runtime: Input initial_c must have shape {1,2,3}. Actual:{1,2,6}".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 \
    onnxruntime==1.31.1
"$place/venv/bin/python" - 2>"$place/warnings" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

T, N, I, H, P = 5, 2, 4, 6, 3
layer = torch.nn.LSTM(I, H, proj_size=P).eval()
x = torch.ones(T, N, I)
model = torch.onnx.export(layer, (x,), dynamo=True, verbose=False).model_proto
(node,) = [one for one in model.graph.node if one.op_type == "LSTM"]
size = next(one.i for one in node.attribute if one.name == "hidden_size")
arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
cell = list(arrays[node.input[6]].shape)
projection = layer.weight_hr_l0.detach().numpy()
kept = any(one.size == projection.size and np.isin(projection, one).all() for one in arrays.values())
onnx.checker.check_model(model)
try:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    session.run(None, {model.graph.input[0].name: x.numpy()})
    said = "ran"
except Exception as error:
    said = str(error).split("Status Message: ")[-1]
print(f"hidden_size {size}, initial_c {cell}, projection in the file: {kept}, checker: accepted, "
      f"ONNX Runtime: {said}")
sys.exit(not (size == P and cell == [1, N, H] and not kept and "must have shape" in said))
PYTHON
