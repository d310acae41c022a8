"""A trial of a comparison: train, then measure the last weights on what was not learned from."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unrolled.bench.comparisons import Comparison
from unrolled.bench.machine import environment
from unrolled.config import Config
from unrolled.tasks import Task, find_task, load_trained, measure, read_text
from unrolled.tasks.baselines import xz_bits
from unrolled.tasks.language_modeling import split_bytes
from unrolled.train import fit

__all__ = ["StoppedError", "baselines_of", "name_of", "run_trial"]

_SEQUENCES = 1000
Row = dict[str, Any]


class StoppedError(Exception):
    """A signal ended the trial."""


def name_of(comparison: str, config: Any) -> str:
    """Of a trial: what tells it from the others of its comparison."""
    parts = [comparison, config.cell, str(config.hidden_size)]
    return " ".join([*parts, "chrono"] if config.remember else parts)


def run_trial(name: str, comparison: Comparison, config: Any, folder: Path) -> Row:
    """Train in a folder and measure: a row of the table.

    Raises:
        StoppedError: a signal ended it.
    """
    start = time.perf_counter()
    result = fit(config, folder)
    seconds = time.perf_counter() - start
    if result.interrupted:
        raise StoppedError
    model, codec = load_trained(result.last, result.task.__class__)
    tests = _tests(comparison, config)
    return {
        "name": name_of(name, config),
        "comparison": name,
        "cell": config.cell,
        "hidden_size": config.hidden_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "settings": _settings(config),
        "seed": config.seed,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "seconds": seconds,
        "results": {
            key: measure(_read(result.task, test, codec), model)[comparison.measure]
            for key, test in tests.items()
        },
        "environment": environment(torch.get_num_threads()),
    }


def _tests(comparison: Comparison, config: Any) -> dict[str, Config]:
    """What a trial is measured on, by the length, or the one thing there is."""
    if comparison.task != "problem":
        return {"": config}
    fresh = replace(config, seed=config.seed + 1, validation_sequences=_SEQUENCES)
    lengths = comparison.lengths or (config.length,)
    return {str(length): replace(fresh, length=length) for length in lengths}


def _read(task: Task, config: Config, codec: Any) -> Task:
    """The task of other sequences, or the very same."""
    return task if config == task.config else type(task).read(config, codec)


def baselines_of(comparison: Comparison) -> dict[str, dict[str, float]]:
    """What simple methods reach: results as in a trial's row, by the method's name."""
    found: dict[str, dict[str, float]] = {}
    for key, config in _tests(comparison, comparison.trials[0]).items():
        task = find_task(comparison.task).read(config)
        for name, measures in (task.baselines() | _xz(comparison, config)).items():
            if comparison.measure in measures:
                found.setdefault(name, {})[key] = measures[comparison.measure]
    return found


def _xz(comparison: Comparison, config: Any) -> dict[str, dict[str, float]]:
    """What a language model is held against."""
    if comparison.task != "lm":
        return {}
    text = read_text(config.paths, suffixes=config.suffixes, limit=config.limit)
    alone, given = xz_bits(*split_bytes(config, text))
    return {
        "xz -9, the text learned from first": {comparison.measure: given},
        "xz -9, the held-out text alone": {comparison.measure: alone},
    }


def _settings(config: Any) -> str:
    """What departs from the default way to start and to learn."""
    said = []
    if config.remember:
        said.append(f"chrono {config.remember}")
    if config.recurrent_rate != 1.0:
        said.append(f"recurrent rate × {config.recurrent_rate:g}")
    if config.schedule != "cosine":
        said.append(f"{config.schedule} rate")
    return ", ".join(said)
