"""A trial of a comparison: train, then evaluate the final weights on held-out data."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch

from unrolled.bench._comparisons import Comparison
from unrolled.bench._machine import Environment, environment
from unrolled.config import Config, LanguageModelConfig, ProblemConfig
from unrolled.tasks import Task, find_task, load_trained, measure, read_text
from unrolled.tasks._baselines import xz_bits
from unrolled.tasks._language_modeling import split_bytes
from unrolled.train import fit

_SEQUENCES = 1000
Scores = dict[str, float]
"""A comparison's score by the length that it was measured at; the key is empty without lengths."""


class Row(TypedDict):
    """The result of one trial."""

    name: str
    comparison: str
    cell: str
    hidden_size: int
    parameters: int
    settings: str
    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    seconds: float
    results: Scores
    environment: Environment


class Results(TypedDict):
    """The contents of the results file: trials, and baselines by comparison and method."""

    rows: list[Row]
    baselines: dict[str, dict[str, Scores]]


class StoppedError(Exception):
    """A signal stopped the trial."""


def name_of(comparison: str, config: Config) -> str:
    """The name of a trial, which is unique within its comparison."""
    parts = [comparison, config.cell, str(config.hidden_size)]
    return " ".join([*parts, "chrono"] if config.chrono_steps else parts)


def run_trial(name: str, comparison: Comparison, config: Config, folder: Path) -> Row:
    """Train in a folder and evaluate; returns a row of the table.

    Raises:
        StoppedError: a signal stopped the training.
    """
    start = time.perf_counter()
    result = fit(config, folder)
    seconds = time.perf_counter() - start
    if result.interrupted:
        raise StoppedError
    model, codec = load_trained(result.last, result.task.__class__)
    tests = _test_configs(comparison, config)
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
            key: measure(_test_task(result.task, test, codec), model)[comparison.measure]
            for key, test in tests.items()
        },
        "environment": environment(torch.get_num_threads()),
    }


def _test_configs(comparison: Comparison, config: Config) -> dict[str, Config]:
    """The configurations whose data a trial is evaluated on, by the sequence length if there are
    several."""
    if not isinstance(config, ProblemConfig):
        return {"": config}
    fresh = replace(config, seed=config.seed + 1, validation_sequences=_SEQUENCES)
    lengths = comparison.lengths or (config.length,)
    return {str(length): replace(fresh, length=length) for length in lengths}


def _test_task(task: Task, config: Config, codec: object) -> Task:
    """The task with the data of another configuration, or the same task if they are equal."""
    return task if config == task.config else type(task).read(config, codec)


def baselines_of(comparison: Comparison) -> dict[str, Scores]:
    """The scores of simple methods, by the method's name."""
    baselines: dict[str, Scores] = {}
    for key, config in _test_configs(comparison, comparison.trials[0]).items():
        task = find_task(comparison.task).read(config)
        for name, scores in (task.baselines() | _xz_scores(comparison, config)).items():
            if comparison.measure in scores:
                baselines.setdefault(name, {})[key] = scores[comparison.measure]
    return baselines


def _xz_scores(comparison: Comparison, config: Config) -> dict[str, Scores]:
    """The compression rates of xz, which a language model is compared with."""
    if not isinstance(config, LanguageModelConfig):
        return {}
    text = read_text(config.paths, suffixes=config.suffixes, limit=config.limit)
    bits_alone, bits_after_training = xz_bits(*split_bytes(config, text))
    return {
        "xz -9, after the training text": {comparison.measure: bits_after_training},
        "xz -9, the held-out text alone": {comparison.measure: bits_alone},
    }


def _settings(config: Config) -> str:
    """The settings of initialization and optimization that differ from the defaults."""
    settings = []
    if config.chrono_steps:
        settings.append(f"chrono {config.chrono_steps}")
    if config.recurrent_lr_scale != 1.0:
        settings.append(f"recurrent lr × {config.recurrent_lr_scale:g}")
    if config.schedule != "cosine":
        settings.append(f"{config.schedule} learning rate")
    return ", ".join(settings)
