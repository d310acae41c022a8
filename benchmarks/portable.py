"""The speed of portable ONNX files compared with default ones, in ONNX Runtime and OpenVINO.

    python benchmarks/portable.py [--threads 2] [--rounds 9]

Prints a line for each layer: milliseconds of a call with the default and with the portable file,
median and spread of interleaved rounds. OpenVINO ignores lengths in default files, and is not timed
with them.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch

from unrolled.bench._machine import describe, environment
from unrolled.bench._timing import Plan, Timing, interleave
from unrolled.nn import GRU, LSTM
from unrolled.onnx import export

OPENVINO = openvino.Core()  # see peers/openvino_model.py
SHAPES = ((100, 1, 64), (100, 8, 128), (100, 32, 256))  # T, N, H


def onnxruntime_call(path: Path, feed: dict[str, np.ndarray], threads: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def openvino_call(path: Path, feed: dict[str, np.ndarray], threads: int) -> Callable[[], Any]:
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = OPENVINO.compile_model(OPENVINO.read_model(path), "CPU", options)
    return lambda: model(feed)


def measure(layer: torch.nn.Module, T: int, N: int, lengths: bool, options: Any) -> None:
    """Print one line."""
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((T, N, layer.input_size), np.float32)}
    if lengths:
        feed["lengths"] = rng.integers(T // 2, T + 1, N)
    calls = {}
    with tempfile.TemporaryDirectory() as folder:
        for portable in (False, True):
            path = Path(folder) / f"{portable}.onnx"
            export(layer, path, lengths=lengths, portable=portable)
            file_format = "portable" if portable else "default"
            calls[f"ONNX Runtime {file_format}"] = onnxruntime_call(path, feed, options.threads)
            if portable or not lengths:
                calls[f"OpenVINO {file_format}"] = openvino_call(path, feed, options.threads)
        times = interleave(calls, Plan(rounds=options.rounds))
    texts = ", ".join(f"{name} {_format(time)}" for name, time in times.items())
    name = f"{type(layer).__name__} T={T} N={N} H={layer.hidden_size}"
    print(f"{name}{' lengths' * lengths}: {texts} ms", flush=True)


def _format(time: Timing) -> str:
    return f"{time.median_ms:.3g} ± {time.spread_ms:.1g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(describe(environment(arguments.threads)))
    print(f"ONNX Runtime {onnxruntime.__version__}, OpenVINO {openvino.__version__}")
    for T, N, H in SHAPES:
        for make in (LSTM, GRU):
            for lengths in (False, True):
                measure(make(H, H), T, N, lengths, arguments)
