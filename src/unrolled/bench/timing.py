"""Interleaved timing: all calls in one process, in rounds whose order rotates.

Before each sample the process comes to rest, for the threads of one peer spin on the cores of the
next (ONNX Runtime's for some 40 ms, OpenMP's for 10); then a sample is run untimed, which wakes
its own threads and warms its caches. What is timed, and whether its results are right, is the
business of others.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Call = Callable[[], object]

LONG_MS = 30.0  # a call that takes longer needs no warming before each sample


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    A sample repeats a call until it lasts ``sample_ms``; when all samples together have taken
    ``budget_s``, the rounds end, though not before ``least`` of them.
    """

    rounds: int = 15
    sample_ms: float = 2.0
    budget_s: float = 12.0
    least: int = 5


@dataclass(frozen=True)
class Timing:
    """Median and spread (half the distance of the quartiles) of one call, in ms."""

    median_ms: float
    spread_ms: float
    rounds: int
    repeats: int


def interleave(calls: Mapping[str, Call], plan: Plan) -> dict[str, Timing]:
    """Time all calls in turns; round k starts with the k-th."""
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    with _no_collection():
        estimates = {name: _estimate(call, plan.sample_ms) for name, call in calls.items()}
        repeats = {name: _repeats(estimates[name], plan.sample_ms) for name in names}
        start = time.perf_counter()
        for k in range(plan.rounds):
            if k >= plan.least and time.perf_counter() - start > plan.budget_s:
                break
            for name in rotated(names, k):
                settle()
                if estimates[name] < LONG_MS:
                    _sample(calls[name], repeats[name])
                taken[name].append(_sample(calls[name], repeats[name]))
    return {name: _timing(taken[name], repeats[name]) for name in names}


def rotated(names: list[str], k: int) -> list[str]:
    """The names, starting with the k-th."""
    first = k % len(names)
    return names[first:] + names[:first]


def settle(most_s: float = 0.2) -> None:
    """Wait until no thread of this process computes."""
    end = time.perf_counter() + most_s
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(0.005)
        if time.process_time() - before < 0.001:
            return


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """The median, and half the distance of the quartiles."""
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
    """The shortest of some calls, in ms; the first is a warm-up."""
    call()
    shortest, total = math.inf, 0.0
    for _ in range(20):
        once = _sample(call, 1)
        shortest, total = min(shortest, once), total + once
        if total > 5 * sample_ms:
            break
    return shortest


def _sample(call: Call, repeats: int) -> float:
    """Milliseconds for each of so many calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) * 1e3 / repeats


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside; all that is due before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
