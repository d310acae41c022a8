#!/usr/bin/env bash
# What code that moves between torch.nn's recurrent layers and others meets.
#
# torch 2.13.0, numpy 2.4.6, torchaudio 2.11.1, Linux x86-64, CPython 3.11:
#
#   nonlinearity set later: RNN ignores it, RNNCell follows it
#   hidden_size=numpy.int64(4): LSTM refuses it (TypeError), LSTMCell takes it
#   GRU proj_size=2: by name ValueError, by position it is built and fails when it is called (RuntimeError)
#   LSTM with one parametrised weight computes it 4 times a call, LSTMCell once
#   torchaudio 2.11.1 declares torch>=2.11; beside torch 2.13.0 import torchaudio: OSError
#
# The first is silent: nn.RNN goes by its `mode`, which is set when it is built. The second is what a
# grid of scikit-learn or NumPy passes (skorch, numpy.arange). The last is what `pip install speechbrain`
# brings beside torch 2.13: its declared range includes 2.13, its library does not load there.
#
# Exits with 1 if one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 torchaudio==2.11.1
cat > try.py <<'PYTHON'
import importlib.metadata
import warnings

import numpy
import torch
from torch import nn
from torch.nn.utils import parametrize

warnings.simplefilter("ignore")
x = torch.randn(5, 2, 3)
lines = []


def outcome(action):
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "taken"


def follows(module, data):
    before = module(data)
    module.nonlinearity = "relu"
    after = module(data)
    first = lambda value: value[0] if isinstance(value, tuple) else value
    return "ignores it" if torch.equal(first(before), first(after)) else "follows it"


lines.append(f"nonlinearity: RNN {follows(nn.RNN(3, 4), x)}, RNNCell {follows(nn.RNNCell(3, 4), x[0])}")
size = numpy.int64(4)
layer, cell = outcome(lambda: nn.LSTM(3, size)), outcome(lambda: nn.LSTMCell(3, size))
lines.append(f"numpy.int64: LSTM {layer}, LSTMCell {cell}")
named = outcome(lambda: nn.GRU(3, 4, proj_size=2))
placed = nn.GRU(3, 4, 1, True, False, 0.0, False, 2)
lines.append(f"proj_size: by name {named}, by position {outcome(lambda: placed(x))}")


class Counted(nn.Module):
    calls = 0

    def forward(self, weight):
        Counted.calls += 1
        return 2 * weight


def calls(module, name, data):
    parametrize.register_parametrization(module, name, Counted())
    Counted.calls = 0
    module(data)
    return Counted.calls


lstm, step = calls(nn.LSTM(3, 4), "weight_hh_l0", x), calls(nn.LSTMCell(3, 4), "weight_hh", x[0])
lines.append(f"parametrised: LSTM {lstm}, LSTMCell {step}")
wanted = [name for name in importlib.metadata.requires("torchaudio") or [] if name.startswith("torch")]
lines.append(f"torchaudio: wants {wanted}, {outcome(lambda: __import__('torchaudio'))}")
print("\n".join(lines))
PYTHON
venv/bin/python try.py | tee seen
cat > expected <<'TEXT'
nonlinearity: RNN ignores it, RNNCell follows it
numpy.int64: LSTM TypeError, LSTMCell taken
proj_size: by name ValueError, by position RuntimeError
parametrised: LSTM 4, LSTMCell 1
torchaudio: wants ['torch>=2.11'], OSError
TEXT
diff expected seen
