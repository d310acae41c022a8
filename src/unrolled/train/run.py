"""A training run from its configuration to its folder, and its continuation."""

import dataclasses
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from unrolled.config import CONFIGS, Config
from unrolled.diagnostics import loss_curve
from unrolled.io import CORRUPT_FILE_ERRORS, FileError
from unrolled.nn import Recurrent
from unrolled.nn.init import chrono_
from unrolled.tasks import DataError, Task, find_task, task_name
from unrolled.tasks.load_trained import check_weights, model_weights
from unrolled.train.callbacks import (
    Abort,
    FinalValidation,
    Interrupt,
    Interrupted,
    Metrics,
    columns,
    read_rows,
)
from unrolled.train.checkpoint import Checkpoints, TreeCheckpointIO
from unrolled.train.folder import (
    BEST,
    CONFIG,
    CURVE,
    LAST,
    METRICS,
    held,
    is_first,
    read_config,
    write_config,
)
from unrolled.train.module import Data, Diverged, ProcessesError, Training
from unrolled.train.progress import Progress
from unrolled.train.rows import warn_of
from unrolled.train.watching import WATCH, Watch

__all__ = ["Result", "fit", "new_model", "resume"]

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Result:
    """A run that has ended, or was interrupted by a signal (0: it was not).

    `step` counts optimizer steps. `validation` has the measures, by name, of the last validation,
    after `validation_step`; `best_validation` those of the checkpoint `best`, after `best_step`.
    They are empty, `best` and the steps None, before a validation.
    """

    task: Task
    run: Path
    step: int
    signal: int
    last: Path
    best: Path | None
    metrics: Path
    curve: Path
    validation: dict[str, float]
    validation_step: int | None
    best_validation: dict[str, float]
    best_step: int | None

    @property
    def interrupted(self) -> bool:
        return self.signal != 0


def fit(config: Config, run: str | os.PathLike[str], *, progress: TextIO | bool = True) -> Result:
    """Train on the task of a configuration; what an earlier run left in the folder `run` is
    replaced.

    The folder gets `config.json`, `metrics.csv`, `last.safetensors`, `best.safetensors` (least
    validation loss) and `curve.png`. Ctrl-C or SIGTERM ends the run after the current step with a
    valid checkpoint (`Result.interrupted`). The seed fixes every number: torch's and Python's
    global generators are set.

    Args:
        progress: where to show it; True for stderr, False for silence.

    Raises:
        unrolled.tasks.DataError: data are missing, unreadable, empty or too short.
        unrolled.train.Diverged: the loss is no number any more.
        ValueError: the configuration wants what there is not: a GPU, a cell.
        OSError: another process trains in the folder.
        KeyboardInterrupt: a second Ctrl-C; the checkpoint before it is whole.
    """
    run = Path(run)
    task = _read(config)
    model = new_model(task)
    run.mkdir(parents=True, exist_ok=True)
    with held(run, is_first()):
        if is_first():
            for name in (METRICS, LAST, BEST, CURVE, WATCH):
                (run / name).unlink(missing_ok=True)
            write_config(task.name, config, run / CONFIG)
        return _train(Training(task, model), run, progress, None)


def resume(
    run: str | os.PathLike[str],
    *,
    steps: int | None = None,
    progress: TextIO | bool = True,
) -> Result:
    """Go on with a run from its last checkpoint, to the bit as if it had not stopped; from the
    beginning if it stopped before the first one.

    Args:
        run: the run's folder.
        steps: a new number of steps in all; the learning rate's schedule stretches with it.
        progress: where to show it; True for stderr, False for silence.

    Raises:
        unrolled.io.FileError: the configuration is missing, or it or the checkpoint is damaged.
        unrolled.tasks.DataError: the data are not those that the run began with.
        unrolled.train.Diverged: the loss is no number any more.
        ValueError: fewer steps than are done already.
        OSError: another process trains in the folder.
        KeyboardInterrupt: a second Ctrl-C; the checkpoint before it is whole.
    """
    run = Path(run)
    name, before = read_config(run / CONFIG)
    config = before if steps is None else dataclasses.replace(before, steps=steps)
    if not any((run / checkpoint).exists() for checkpoint in (LAST, BEST)):
        # Stopped before its first checkpoint: the seed makes the same run of it.
        return fit(config, run, progress=progress)
    # A fault of the checkpoint shows before the work of reading data.
    tree = _checkpoint_of(run / LAST, name, config)
    task = _read(config)
    _check_model(run / LAST, tree, task)
    module = Training(task, new_model(task))
    with held(run, is_first()):
        if is_first():
            write_config(task.name, config, run / CONFIG)
        try:
            return _train(module, run, progress, run / LAST)
        except (DataError, FileError):
            if is_first():
                write_config(task.name, before, run / CONFIG)
            raise


def _checkpoint_of(path: Path, name: str, config: Config) -> Any:
    """A run's checkpoint, refused if the configuration cannot go on from it."""
    tree = TreeCheckpointIO().load_checkpoint(path)
    _check_kind(path, tree, name)
    done, processes = tree["global_step"], len(tree["processes"])
    if config.steps < done:
        raise ValueError(f"steps: wanted at least the {done} that are done, got {config.steps}")
    if processes != config.devices * config.nodes:
        raise ProcessesError(
            f"devices: wanted as many processes as the run began with, {processes}, got "
            f"{config.devices * config.nodes}"
        )
    return tree


def _check_kind(path: Path, tree: Any, wanted: str) -> None:
    """Refuse a checkpoint of another task, or of no run."""
    name = task_name(path, tree)
    if name != wanted:
        raise FileError(path, f"wanted a checkpoint of the task {wanted}, got one of {name}")
    step, processes = tree.get("global_step"), tree.get("processes")
    if type(step) is not int or step < 0 or not isinstance(processes, list):
        raise FileError(path, "lacks the number of steps or the states of its processes")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"):
        if part not in tree:
            raise FileError(path, f"lacks {part}, without which its run cannot go on")


def _check_model(path: Path, tree: Any, task: Task) -> None:
    """Refuse a checkpoint whose model is not the configuration's, before that one is made."""
    try:
        found, wanted = tree["model"], task.model_arguments()
        for name in wanted.keys() | found.keys():
            if wanted.get(name) != found.get(name):
                raise ValueError(
                    f"{name}: config.json and the data say {wanted.get(name)!r}, the checkpoint "
                    f"{found.get(name)!r}"
                )
        task.codec_from_state(tree["codec"])
        check_weights(wanted, model_weights(tree), task.build_model)
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"holds no model of this run ({error})") from None


def new_model(task: Task) -> nn.Module:
    """The untrained model of a task: seeds the global generators and draws its weights."""
    random.seed(task.config.seed)
    torch.manual_seed(task.config.seed)
    model = task.build_model(task.model_arguments())
    steps = task.config.remember
    for layer in [one for one in model.modules() if isinstance(one, Recurrent) and steps]:
        if not layer.cell.forget_gates + layer.cell.input_gates:
            raise ValueError(
                f"remember: wanted a cell whose gates keep or write, got {task.config.cell}"
            )
        chrono_(layer, steps)
    return model


def _read(config: Config) -> Task:
    if config.accelerator == "gpu" and not torch.accelerator.is_available():
        raise ValueError("accelerator: wanted a GPU, but torch sees none; use cpu or auto")
    if config.batch_size < config.devices * config.nodes:
        processes = config.devices * config.nodes
        raise ValueError(
            f"batch_size: wanted one for each of {processes} processes, got {config.batch_size}"
        )
    _check_processes(config)
    name = next(name for name, kind in CONFIGS.items() if kind is type(config))
    return find_task(name).read(config)


def _check_processes(config: Config) -> None:
    """Hold the number of processes to what started this one.

    Raises:
        ValueError: torchrun started another number, or several machines and no torchrun.
    """
    wanted, by_torchrun = config.devices * config.nodes, "TORCHELASTIC_RUN_ID" in os.environ
    if by_torchrun and os.environ["WORLD_SIZE"] != str(wanted):
        raise ValueError(
            f"devices: wanted (times --nodes) the {os.environ['WORLD_SIZE']} processes that "
            f"torchrun started, got {wanted}"
        )
    if config.nodes > 1 and not by_torchrun and "SLURM_NTASKS" not in os.environ:
        raise ValueError(f"nodes: wanted 1 without torchrun, which starts them, got {config.nodes}")


def _train(module: Training, run: Path, progress: TextIO | bool, checkpoint: Path | None) -> Result:
    task: Task = module.task
    config = task.config
    checkpoints = Checkpoints(run)
    interrupt = Interrupt(checkpoints)
    stopped = 0
    with _quiet(), interrupt.listening():
        trainer = Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy="ddp" if config.devices * config.nodes > 1 else "auto",
            use_distributed_sampler=False,
            precision=_PRECISION[config.precision],  # type: ignore[arg-type]
            max_steps=config.steps,
            gradient_clip_val=config.clip or None,
            val_check_interval=config.validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            callbacks=_callbacks(task, run, progress, checkpoints, interrupt),
            plugins=[TreeCheckpointIO()],
            default_root_dir=run,
            logger=_logger(config, run),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, datamodule=Data(task), ckpt_path=checkpoint)
        except Interrupted:
            stopped = interrupt.signal or signal.SIGINT
        except Abort:
            raise KeyboardInterrupt from None
        except (DataError, Diverged, FileError, ProcessesError, torch.OutOfMemoryError):
            raise
        except CORRUPT_FILE_ERRORS as error:
            if checkpoint is None or module.stepped:
                raise
            raise FileError(checkpoint, f"its run cannot go on ({error})") from error
    return _result(task, run, trainer.global_step, stopped, checkpoints)


def _callbacks(
    task: Task,
    run: Path,
    progress: TextIO | bool,
    checkpoints: Checkpoints,
    interrupt: Interrupt,
) -> list[Callback]:
    """The order matters: what is measured, then shown, then kept, then left."""
    stream = sys.stderr if progress is True else progress
    found: list[Callback] = [Metrics(run / METRICS, task)]
    if stream and is_first():
        found.append(Progress(stream, task))
    found.append(FinalValidation())
    if task.config.watch is not None:
        found.append(Watch(task.config.watch, run))
    if task.config.patience is not None:
        patience = task.config.patience
        found.append(EarlyStopping("validation_loss", patience=patience, check_finite=False))
    return [*found, checkpoints, interrupt]


def _logger(config: Config, run: Path) -> Any:
    if not config.tensorboard:
        return False
    return TensorBoardLogger(run, name="", version="tensorboard", default_hp_metric=False)


def _result(task: Task, run: Path, step: int, stopped: int, checkpoints: Checkpoints) -> Result:
    rows: list[dict[str, str]] = []
    with warn_of(run / METRICS):
        rows = read_rows(run / METRICS, columns(task))
    last = [row for row in rows if all(row[f"validation_{name}"] for name in task.metric_names)][
        -1:
    ]
    if is_first():
        with warn_of(run / CURVE):
            loss_curve(rows, run / CURVE, task.progress_metric)
    best = run / BEST if (run / BEST).exists() else None
    return Result(
        task=task,
        run=run,
        step=step,
        signal=stopped,
        last=run / LAST,
        best=best,
        metrics=run / METRICS,
        curve=run / CURVE,
        validation={
            name: float(row[f"validation_{name}"]) for row in last for name in task.metric_names
        },
        validation_step=int(last[0]["step"]) if last else None,
        best_validation=checkpoints.scores if best else {},
        best_step=checkpoints.step if best and checkpoints.scores else None,
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
