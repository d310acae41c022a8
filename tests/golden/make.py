"""Writes golden files with today's version of the description: ``python tests/golden/make.py``.

Never over those that are there: old files must go on loading as they are.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from unrolled import cells
from unrolled.export import export
from unrolled.models import SequenceModel
from unrolled.nn import LSTM, Recurrent
from unrolled.runtime import load
from unrolled.runtime.description import VERSION

FOLDER = Path(__file__).parent


def main() -> None:
    torch.manual_seed(0)
    tokens = SequenceModel(5, 3, hidden_size=4, embedding_size=2, initial="learned")
    modules = {
        "lstm": nn.Sequential(LSTM(2, 3, num_layers=2), nn.Linear(3, 2), nn.Softmax(-1)),
        "slstm": Recurrent(cells.SLSTM, 2, 4, bidirectional=True),
        "tokens": tokens,
    }
    chance = np.random.default_rng(0)
    for name, module in modules.items():
        path = FOLDER / f"v{VERSION}-{name}.safetensors"
        if path.exists():
            continue
        export(module, path)
        x = chance.integers(0, 5, (4, 2)) if name == "tokens" else chance.standard_normal((4, 2, 2))
        x = x.astype(np.int64 if name == "tokens" else np.float32)
        told = {"dtype": str(x.dtype), "x": x.tolist(), "y": load(path).run(x).tolist()}
        path.with_suffix(".json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
