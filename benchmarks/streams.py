"""One step at a time, T = N = 1: streams of the runtime, compared with other libraries.

    python benchmarks/streams.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

A stream carries its state over, on one thread or on as many as the others. The others start from
zeros in each call, which saves them the copies. torch's int8 layers quantize the input in every
call.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import harness
import peers
from checks import Results
from harness import Row, Settings
from peers import Peer
from peers.layers import make_torch
from problems import CELLS, Case, Problem, make_case
from unrolled import nn as unrolled_nn

SIZES = (64, 256, 1024)
WEIGHTS = ("float32", "bfloat16", "int8")
MORE = 4  # times as many rounds, because samples are short
STEPS = {64: 1_000_000, 256: 100_000, 1024: 5_000}  # of the tail, by size


def rows(settings: Settings) -> list[Row]:
    """Every cell and size, with all peers."""
    plan = replace(settings.plan, rounds=MORE * settings.plan.rounds)
    table = []
    for cell in CELLS:
        for H in SIZES[:1] if settings.quick else SIZES:
            problem = Problem(cell, 1, 1, H, H, training=False)
            if not settings.wants(problem.name):
                continue
            case = make_case(problem)
            step_peers = {"torch": make_torch(case, settings.threads)}
            runtime = peers.available()[0].get("onnxruntime")
            if runtime is not None:
                step_peers["onnxruntime"] = runtime(case, settings.threads)
            truths = dict.fromkeys(step_peers, case.truth())
            for name, (peer, truth) in (
                _streams(case, settings.threads) | _quantized(case)
            ).items():
                step_peers[name], truths[name] = peer, truth
            row = harness.measure(problem.name, step_peers, truths, False, plan)
            row["errors"] = _errors(case)
            row["tail_us"] = _tail(case, 1000 if settings.quick else STEPS[H])
            table.append({**row, **harness.describe_problem(case)})
    return table


def _layer(case: Case) -> Any:
    layer = getattr(unrolled_nn, case.problem.cell)(case.problem.I, case.problem.H)
    layer.load_state_dict(case.layer.state_dict())
    return layer


def _streams(case: Case, threads: int) -> dict[str, tuple[Peer, Results]]:
    """Our streams; those in float32 are checked against torch, the others against a first step."""
    layer, stream_peers = _layer(case), {}
    for weights in WEIGHTS:
        output = torch.from_numpy(layer.stream(1, weights).step(case.x[0].numpy())).clone()[None]
        truth = case.truth() if weights == "float32" else {"output": output}
        for count in sorted({1, threads}):
            step, x, out = _step(layer, case, weights, count)

            def call(step: Callable[..., Any] = step, x: Any = x, out: Any = out) -> Any:
                return step(x, out)

            name = f"unrolled {weights}" + (f" {count} threads" if count > 1 else "")
            stream_peers[name] = (Peer(call, _read), truth)
    return stream_peers


def _step(
    layer: Any, case: Case, weights: str, threads: int = 1
) -> tuple[Callable[..., Any], Any, Any]:
    out = np.empty((1, case.problem.H), np.float32)
    return layer.stream(1, weights, threads).step, case.x[0].numpy(), out


def _read(out: Any) -> Results:
    return {"output": torch.from_numpy(out.copy())[None]}


def _quantized(case: Case) -> dict[str, tuple[Peer, Results]]:
    """torch's dynamic int8 layer, which exists for GRU and LSTM."""
    if case.problem.cell == "RNN":
        return {}
    layer_class = getattr(torch.ao.nn.quantized.dynamic, case.problem.cell)
    case.layer.qconfig = torch.ao.quantization.default_dynamic_qconfig
    layer = layer_class.from_float(case.layer)

    def call() -> Any:
        return layer(case.x)[0]

    return {"torch int8": (Peer(call, lambda output: {"output": output}), {"output": call()})}


def _errors(case: Case) -> dict[str, float]:
    """The largest error of low-precision weights over 100 steps, against float32."""
    layer = _layer(case)
    x = torch.randn(100, 1, case.problem.I, generator=torch.Generator().manual_seed(1)).numpy()
    outputs = {}
    for weights in WEIGHTS:
        stream = layer.stream(1, weights)
        outputs[weights] = np.stack([stream.step(row) for row in x])
    full = outputs["float32"]
    return {weights: float(np.abs(outputs[weights] - full).max()) for weights in WEIGHTS[1:]}


def _tail(case: Case, steps: int) -> dict[str, float]:
    """Median and percentiles of the times of single steps in float32, in microseconds."""
    step, x, out = _step(_layer(case), case, "float32")
    times = np.empty(steps)
    for k in range(steps):
        start = time.perf_counter_ns()
        step(x, out)
        times[k] = time.perf_counter_ns() - start
    percentiles = np.percentile(times, [50, 99, 99.9]) / 1e3
    return {"steps": steps, **dict(zip(("p50", "p99", "p99.9"), percentiles.tolist(), strict=True))}


if __name__ == "__main__":
    harness.main(__doc__, {"streams": rows})
