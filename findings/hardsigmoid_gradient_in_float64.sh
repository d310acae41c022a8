#!/usr/bin/env bash
# torch 2.13.0, CPU: the backward pass of hardsigmoid in float64 multiplies by one sixth rounded to
# float32, so that its gradient has an error of 3e-8 where float64 has 1e-16; forward is exact.
# hardtanh scaled to the same function has the exact gradient. gradcheck's tolerances hide it.
#
# Output:
#     torch 2.13.0
#     hardsigmoid: gradient 0.16666667163372040, relative error 3.0e-08
#     hardtanh:    gradient 0.16666666666666666, relative error 0.0e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import hardsigmoid, hardtanh

print("torch", torch.__version__.split("+")[0])
errors = []
for name, function in (
    ("hardsigmoid:", hardsigmoid),
    ("hardtanh:   ", lambda x: hardtanh(x / 6 + 0.5, 0.0, 1.0)),
):
    x = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    function(x).backward()
    gradient = x.grad.item()
    errors.append(abs(gradient * 6 - 1))
    print(f"{name} gradient {gradient:.17f}, relative error {errors[-1]:.1e}")
raise SystemExit(not (errors[0] > 1e-9 and errors[1] < 1e-15))
PYTHON
