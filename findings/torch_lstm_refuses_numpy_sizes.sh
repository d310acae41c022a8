#!/usr/bin/env bash
# torch 2.13.0, CPU build: torch.nn.RNN, LSTM and GRU refuse a hidden_size that is a NumPy integer,
# which their cells and torch.nn.Linear take. It is what numpy.arange, a grid search of
# scikit-learn or of skorch, and pandas hand over.
#
# Seen: "hidden_size=numpy.int64(4): RNN TypeError, LSTM TypeError, GRU TypeError, RNNCell taken,
# LSTMCell taken, GRUCell taken, Linear taken".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import sys

import numpy
import torch

outcomes = {}
for name in ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Linear"):
    try:
        getattr(torch.nn, name)(3, numpy.int64(4))
        outcomes[name] = "taken"
    except TypeError as error:
        outcomes[name] = type(error).__name__
print("hidden_size=numpy.int64(4):", ", ".join(f"{k} {v}" for k, v in outcomes.items()))
sys.exit(list(outcomes.values()) != ["TypeError"] * 3 + ["taken"] * 4)
PYTHON
