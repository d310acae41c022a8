"""The speed and size of ONNX files with block-diagonal recurrent products (heads).

    python benchmarks/onnx_heads.py [--threads 2] [--rounds 15] [--blocks 4]

For each size, the LSTM (with one block the operator LSTM, with several a Scan) and an LSTM whose
forget gate starts at one (always a Scan): milliseconds of a call in ONNX Runtime and in OpenVINO,
dense and with blocks, median and spread of interleaved rounds; bytes of the files.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from heads import HeadsLSTM
from portable import onnxruntime_call, openvino_call
from unrolled.bench._machine import describe, environment
from unrolled.bench._timing import Plan, interleave
from unrolled.cells import sigmoid, tanh
from unrolled.nn import Recurrent
from unrolled.onnx import export

SHAPES = ((100, 1, 64), (100, 8, 128), (100, 1, 512), (100, 32, 512))  # T, N, H
I = 8  # noqa: E741


class OpenForgetGate(HeadsLSTM):
    """The LSTM with a constant in its forget gate: no operator has it."""

    def step(self, x: Any, h: Any, state: Any) -> Any:
        c = sigmoid(x.f + h.f + 1) * state.c + sigmoid(x.i + h.i) * tanh(x.g + h.g)
        return sigmoid(x.o + h.o) * tanh(c), c


def measure(cell: type[HeadsLSTM], T: int, N: int, H: int, options: Any) -> None:
    """Print one line."""
    feed = {"x": np.random.default_rng(0).standard_normal((T, N, I), np.float32)}
    calls, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for blocks in (1, options.blocks):
            path = Path(folder) / f"{blocks}.onnx"
            export(Recurrent(cell(blocks), I, H), path)
            sizes[blocks] = path.stat().st_size
            calls[f"ONNX Runtime {blocks}"] = onnxruntime_call(path, feed, options.threads)
            calls[f"OpenVINO {blocks}"] = openvino_call(path, feed, options.threads)
        times = interleave(calls, Plan(rounds=options.rounds))
    texts = []
    for runtime in ("ONNX Runtime", "OpenVINO"):
        dense, separate = times[f"{runtime} 1"], times[f"{runtime} {options.blocks}"]
        texts.append(
            f"{runtime} dense {dense.median_ms:.3g} ± {dense.spread_ms:.1g}, "
            f"blocks {separate.median_ms:.3g} ± {separate.spread_ms:.1g} ms"
        )
    name = f"{cell.__name__} T={T} N={N} H={H}"
    print(f"{name}: {', '.join(texts)}; {sizes[1]} and {sizes[options.blocks]} bytes", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--blocks", type=int, default=4)
    arguments = parser.parse_args()
    print(describe(environment(arguments.threads)))
    for T, N, H in SHAPES:
        for cell in (HeadsLSTM, OpenForgetGate):
            measure(cell, T, N, H, arguments)
