#!/usr/bin/env bash
# torch 2.13.0, CPU build: torch.nn.RNN ignores its attribute nonlinearity once it is built, without
# a message, while torch.nn.RNNCell follows it: a layer whose nonlinearity was set to "relu" goes on
# computing tanh, since RNN goes by its attribute mode.
#
# Seen: "nonlinearity set to relu: RNN ignores it, RNNCell follows it".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import sys

import torch


def follows(module, x):
    before = module(x)
    module.nonlinearity = "relu"
    after = module(x)
    return not torch.equal(*(y[0] if isinstance(y, tuple) else y for y in (before, after)))


x = torch.linspace(-2, 2, 30).reshape(5, 2, 3)
layer, cell = torch.nn.RNN(3, 4), torch.nn.RNNCell(3, 4)
seen = [follows(layer, x), follows(cell, x[0])]
words = ["follows it" if follow else "ignores it" for follow in seen]
print(f"nonlinearity set to relu: RNN {words[0]}, RNNCell {words[1]}")
sys.exit(seen != [False, True])
PYTHON
