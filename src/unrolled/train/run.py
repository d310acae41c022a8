"""A training run from its configuration to its folder, and its continuation."""

import dataclasses
import hashlib
import json
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning.pytorch import Trainer

from unrolled.diagnostics import loss_curve
from unrolled.io import FileError, write
from unrolled.models import LanguageModel
from unrolled.tasks import Score, TextError, Vocabulary, Windows, read_text, split
from unrolled.train.callbacks import (
    Abort,
    FinalValidation,
    Interrupt,
    Interrupted,
    Metrics,
    read_rows,
)
from unrolled.train.checkpoint import BEST, LAST, Checkpoints, TreeCheckpointIO
from unrolled.train.config import LanguageModelConfig
from unrolled.train.module import LanguageData, LanguageTraining
from unrolled.train.progress import Progress

__all__ = [
    "CONFIG",
    "CURVE",
    "METRICS",
    "Result",
    "fit",
    "new_model",
    "read_config",
    "resume",
    "windows",
]

CONFIG = "config.json"
METRICS = "metrics.csv"
CURVE = "curve.png"


@dataclass(frozen=True)
class Result:
    """A run that has ended, or was interrupted; `best` and `validation` lack before a validation.

    `step` counts optimizer steps, `validation` is the last measured one.
    """

    run: Path
    step: int
    interrupted: bool
    last: Path
    best: Path | None
    metrics: Path
    curve: Path
    validation: Score | None


def fit(
    config: LanguageModelConfig,
    run: str | os.PathLike[str],
    *,
    progress: TextIO | bool = True,
) -> Result:
    """Train a language model; whatever an earlier run left in the folder `run` is replaced.

    The folder gets `config.json`, `metrics.csv`, `last.safetensors`, `best.safetensors` (least
    validation loss) and `curve.png`. Ctrl-C ends the run after the current step with a valid
    checkpoint (`Result.interrupted`). The seed fixes every number: torch's and Python's global
    generators are set.

    Args:
        progress: where to show it; True for stderr, False for silence.

    Raises:
        unrolled.tasks.TextError: the text is missing, unreadable, empty or too short.
        ValueError: the configuration wants a GPU and there is none.
        KeyboardInterrupt: a second Ctrl-C; the checkpoint before it is whole.
    """
    run = Path(run)
    vocabulary, training, validation, digest = _prepare(config)
    model = new_model(config, vocabulary)
    run.mkdir(parents=True, exist_ok=True)
    for name in (METRICS, LAST, BEST, CURVE):
        (run / name).unlink(missing_ok=True)
    _write_config(config, run / CONFIG)
    module = LanguageTraining(model, vocabulary, config)
    return _train(module, LanguageData(training, validation, digest), run, progress, None)


def resume(
    run: str | os.PathLike[str],
    *,
    steps: int | None = None,
    progress: TextIO | bool = True,
) -> Result:
    """Go on with a run from its last checkpoint, to the bit as if it had not stopped.

    Args:
        run: the run's folder.
        steps: a new number of steps in all; the learning rate's schedule stretches with it.
        progress: where to show it; True for stderr, False for silence.

    Raises:
        unrolled.io.FileError: the configuration or the checkpoint is missing or damaged.
        unrolled.tasks.TextError: the text is not the one that the run began with.
        ValueError: fewer steps than are done already.
        KeyboardInterrupt: a second Ctrl-C; the checkpoint before it is whole.
    """
    run = Path(run)
    before = read_config(run / CONFIG)
    config = before if steps is None else dataclasses.replace(before, steps=steps)
    # A fault of the checkpoint shows before the work of reading text.
    done = TreeCheckpointIO().load_checkpoint(run / LAST).get("global_step", 0)
    if config.steps < done:
        raise ValueError(f"steps: wanted at least the {done} that are done, got {config.steps}")
    vocabulary, training, validation, digest = _prepare(config)
    module = LanguageTraining(new_model(config, vocabulary), vocabulary, config)
    data = LanguageData(training, validation, digest)
    _write_config(config, run / CONFIG)
    try:
        return _train(module, data, run, progress, run / LAST)
    except TextError:
        _write_config(before, run / CONFIG)
        raise


def new_model(config: LanguageModelConfig, vocabulary: Vocabulary) -> LanguageModel:
    """The untrained model of a configuration: seeds the global generators and draws its weights."""
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    return LanguageModel(
        len(vocabulary),
        config.hidden_size,
        config.cell,  # type: ignore[arg-type]
        config.num_layers,
        config.input,  # type: ignore[arg-type]
        config.embedding_size,
        config.dropout,
    )


def windows(config: LanguageModelConfig, tokens: torch.Tensor) -> tuple[Windows, Windows]:
    """The windows for training and for validation.

    A short validation text is read in fewer streams. All of it is predicted but its first token
    and, where the streams do not divide it, fewer than a token a stream at its end.
    """
    kept, held_out = split(tokens, config.validation_fraction, config.validation_limit)
    streams = min(config.batch_size, max(1, len(held_out) // config.window))
    return (
        Windows(kept, config.batch_size, config.window),
        Windows(held_out, streams, config.window, partial=True),
    )


def read_config(path: str | os.PathLike[str]) -> LanguageModelConfig:
    """Read a run's `config.json`.

    Raises:
        unrolled.io.FileError: no such file, or not a configuration.
    """
    try:
        values: dict[str, Any] = json.loads(Path(path).read_bytes())
        listed = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return LanguageModelConfig(**(values | listed))
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise FileError(path, f"not a configuration of a language model ({error})") from None


def _write_config(config: LanguageModelConfig, path: Path) -> None:
    write(path, (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())


def _prepare(config: LanguageModelConfig) -> tuple[Vocabulary, Windows, Windows, str]:
    if config.accelerator == "gpu" and not torch.accelerator.is_available():
        raise ValueError("accelerator: wanted a GPU, but torch sees none; use cpu or auto")
    text = read_text(config.paths, suffixes=config.suffixes, limit=config.limit)
    vocabulary = Vocabulary() if config.vocabulary == "bytes" else Vocabulary.of(text)
    training, validation = windows(config, vocabulary.encode(text))
    return vocabulary, training, validation, hashlib.sha256(text).hexdigest()


def _train(
    module: LanguageTraining,
    data: LanguageData,
    run: Path,
    progress: TextIO | bool,
    checkpoint: Path | None,
) -> Result:
    config = module.config
    checkpoints = Checkpoints(run)
    interrupt = Interrupt(checkpoints)
    stream = sys.stderr if progress is True else progress
    shown = [Progress(stream)] if stream else []
    interrupted = False
    with _quiet(), interrupt.listening():
        trainer = Trainer(
            accelerator=config.accelerator,
            devices=1,
            max_steps=config.steps,
            gradient_clip_val=config.clip or None,
            val_check_interval=config.validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            # The order matters: what is measured, then shown, then kept, then left.
            callbacks=[
                Metrics(run / METRICS, config.log_every),
                *shown,
                FinalValidation(),
                checkpoints,
                interrupt,
            ],
            plugins=[TreeCheckpointIO()],
            default_root_dir=run,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        except Interrupted:
            interrupted = True
        except Abort:
            raise KeyboardInterrupt from None
    return _result(run, trainer.global_step, interrupted)


def _result(run: Path, step: int, interrupted: bool) -> Result:
    rows = read_rows(run / METRICS)
    losses = [row["validation_loss"] for row in rows if row["validation_loss"]]
    loss_curve(rows, run / CURVE)
    return Result(
        run=run,
        step=step,
        interrupted=interrupted,
        last=run / LAST,
        best=run / BEST if (run / BEST).exists() else None,
        metrics=run / METRICS,
        curve=run / CURVE,
        validation=Score(float(losses[-1])) if losses else None,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from telling what this module already knows (devices, loaders, tips)."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
