#!/usr/bin/env bash
# torch 2.13.0, CPU build: torch.utils.flop_counter.FlopCounterMode counts no operation of
# torch.nn.LSTM in inference on processors where oneDNN serves it, while it counts every product of
# torch.nn.GRU and torch.nn.RNN. The fused operator aten::mkldnn_rnn_layer has no formula, and the
# counter says nothing about operators without one.
#
# Seen: "LSTM 0 of 28160, GRU 21120 of 21120, RNN 7040 of 7040".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

T, N, I, H = 10, 4, 3, 4
seen = []
for kind, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    layer = getattr(torch.nn, kind)(I, 2 * H).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(torch.ones(T, N, I))
    products = T * N * 2 * gates * 2 * H * (I + 2 * H)
    seen.append((kind, counter.get_total_flops(), products))
print(torch.__version__, ", ".join(f"{kind} {count} of {products}" for kind, count, products in seen))
expected = seen[0][1] == 0 and all(count == products for _, count, products in seen[1:])
sys.exit(not expected)
PYTHON
