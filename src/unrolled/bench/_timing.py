"""Interleaved timing: all calls in one process, in rounds whose order rotates.

Before each sample, the process waits until no thread is busy, because the threads of one library
spin on the cores that the next one needs (ONNX Runtime's for some 40 ms, OpenMP's for 10). Then
an untimed sample wakes the threads and warms the caches.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Call = Callable[[], object]

LONG_MS = 30.0  # a longer call needs no warm-up before each sample


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    A sample repeats a call until it lasts `sample_ms`. The rounds end after `budget_s` seconds in
    total, but not before `min_rounds` of them.
    """

    rounds: int = 15
    sample_ms: float = 2.0
    budget_s: float = 12.0
    min_rounds: int = 5


@dataclass(frozen=True)
class Timing:
    """Median and spread (half the interquartile range) of one call, in ms."""

    median_ms: float
    spread_ms: float
    rounds: int
    repeats: int


def interleave(calls: Mapping[str, Call], plan: Plan) -> dict[str, Timing]:
    """Time all calls in rotating order; round k starts with call k."""
    names = list(calls)
    samples: dict[str, list[float]] = {name: [] for name in names}
    with _no_collection():
        estimates = {name: _estimate(call, plan.sample_ms) for name, call in calls.items()}
        repeats = {name: _repeats(estimates[name], plan.sample_ms) for name in names}
        start = time.perf_counter()
        for k in range(plan.rounds):
            if k >= plan.min_rounds and time.perf_counter() - start > plan.budget_s:
                break
            for name in rotated(names, k):
                settle()
                if estimates[name] < LONG_MS:
                    _sample(calls[name], repeats[name])
                samples[name].append(_sample(calls[name], repeats[name]))
    return {name: _timing(samples[name], repeats[name]) for name in names}


def rotated(names: list[str], k: int) -> list[str]:
    """The names in cyclic order, starting with number k."""
    start = k % len(names)
    return names[start:] + names[:start]


def settle(timeout_s: float = 0.2) -> None:
    """Wait until no thread of this process is busy."""
    deadline = time.perf_counter() + timeout_s
    while time.perf_counter() < deadline:
        busy_s = time.process_time()
        time.sleep(0.005)
        if time.process_time() - busy_s < 0.001:
            return


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """The median, and half the interquartile range."""
    if len(values) == 1:
        return values[0], 0.0
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, (high - low) / 2


def _timing(samples: list[float], repeats: int) -> Timing:
    median, spread = median_and_spread(samples)
    return Timing(median, spread, len(samples), repeats)


def _repeats(estimate_ms: float, sample_ms: float) -> int:
    return max(1, math.ceil(sample_ms / estimate_ms))


def _estimate(call: Call, sample_ms: float) -> float:
    """The shortest of several calls, in ms, after a warm-up."""
    call()
    shortest, total = math.inf, 0.0
    for _ in range(20):
        elapsed = _sample(call, 1)
        shortest, total = min(shortest, elapsed), total + elapsed
        if total > 5 * sample_ms:
            break
    return shortest


def _sample(call: Call, repeats: int) -> float:
    """Milliseconds per call, over this many repeats."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) * 1e3 / repeats


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage first, and disable the collector within the block."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
