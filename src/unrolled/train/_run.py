"""Trains a task from its configuration, or resumes a run, in the folder of the run."""

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
from typing import Any, Literal, TextIO

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
from unrolled.tasks._load_trained import check_weights, model_weights
from unrolled.train._callbacks import (
    Abort,
    FinalValidation,
    Interrupt,
    Interrupted,
    Metrics,
    columns,
    read_rows,
)
from unrolled.train._checkpoint import Checkpoints, TreeCheckpointIO
from unrolled.train._folder import (
    BEST,
    CONFIG,
    CURVE,
    LAST,
    METRICS,
    is_first,
    locked,
    read_config,
    write_config,
)
from unrolled.train._module import Data, Diverged, ProcessesError, Training
from unrolled.train._progress import Progress
from unrolled.train._rows import warn_on_error
from unrolled.train._watching import WATCH, Watch

_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}

Tree = dict[str, Any]
"""The contents of a checkpoint."""


@dataclass(frozen=True)
class Result:
    """The result of a run that has finished, or that a signal has interrupted.

    `step` is the number of optimizer steps, and `signal` the number of the signal, or 0.
    `validation` has the scores, by name, of the last validation, after `validation_step`, and
    `best_validation` those of the checkpoint `best`, after `best_step`. If there was no validation,
    they are empty, and `best` and the steps are None.
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
        """Whether a signal stopped the run."""
        return self.signal != 0


def fit(config: Config, run: str | os.PathLike[str], *, progress: TextIO | bool = True) -> Result:
    """Train on the task of a configuration; replaces the files of an earlier run in the folder.

    The folder then has `config.json`, `metrics.csv`, `last.safetensors`, `best.safetensors` (lowest
    validation loss) and `curve.png`. Ctrl-C or SIGTERM stops the run after the current step, with a
    valid checkpoint (`Result.interrupted`). Runs with the same seed give the same results, since
    the global generators of torch and Python are seeded.

    Args:
        config: a configuration of `unrolled.config`.
        run: the run folder, which is created if needed.
        progress: a stream to show progress on; True for stderr, False for none.

    Raises:
        unrolled.tasks.DataError: data are missing, unreadable, empty or too short.
        unrolled.train.Diverged: the loss is not finite.
        ValueError: the configuration asks for a GPU or a cell that does not exist.
        OSError: another process is training in the folder.
        KeyboardInterrupt: a second Ctrl-C; the previous checkpoint is complete.
    """
    run = Path(run)
    task = _read_task(config)
    model = new_model(task)
    run.mkdir(parents=True, exist_ok=True)
    with locked(run, is_first()):
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
    """Resume a run from its last checkpoint, with exactly the results of an uninterrupted run.

    A run without a checkpoint starts from the beginning.

    Args:
        run: the run folder.
        steps: a new total number of steps; the learning rate schedule is stretched to it.
        progress: a stream to show progress on; True for stderr, False for none.

    Raises:
        unrolled.io.FileError: the configuration is missing, or it or the checkpoint is corrupt.
        unrolled.tasks.DataError: the data differ from those that the run was started with.
        unrolled.train.Diverged: the loss is not finite.
        ValueError: `steps` is below the number of steps that the run already has.
        OSError: another process is training in the folder.
        KeyboardInterrupt: a second Ctrl-C; the previous checkpoint is complete.
    """
    run = Path(run)
    name, stored_config = read_config(run / CONFIG)
    config = stored_config if steps is None else dataclasses.replace(stored_config, steps=steps)
    if not any((run / checkpoint).exists() for checkpoint in (LAST, BEST)):
        # Stopped before its first checkpoint: the same seed gives the same run.
        return fit(config, run, progress=progress)
    # The checkpoint is checked before the data are read, which takes longer.
    tree = _load_checkpoint(run / LAST, name, config)
    task = _read_task(config)
    _check_model(run / LAST, tree, task)
    module = Training(task, new_model(task))
    with locked(run, is_first()):
        if is_first():
            write_config(task.name, config, run / CONFIG)
        try:
            return _train(module, run, progress, run / LAST)
        except (DataError, FileError):
            if is_first():
                write_config(task.name, stored_config, run / CONFIG)
            raise


def _load_checkpoint(path: Path, name: str, config: Config) -> Tree:
    """The checkpoint of a run, checked against the configuration to resume with."""
    tree = TreeCheckpointIO().load_checkpoint(path)
    _check_contents(path, tree, name)
    step, processes = tree["global_step"], len(tree["processes"])
    if config.steps < step:
        raise ValueError(
            f"resume: steps must be at least the {step} that the run already has, got "
            f"{config.steps}"
        )
    if processes != config.devices * config.nodes:
        raise ProcessesError(
            "resume: devices must give the number of processes that the run was started with, "
            f"{processes}, got {config.devices * config.nodes}"
        )
    return tree


def _check_contents(path: Path, tree: Tree, task: str) -> None:
    """Check that a checkpoint is complete, and from a run of this task.

    Raises:
        FileError: it is not.
    """
    checkpoint_task = task_name(path, tree)
    if checkpoint_task != task:
        raise FileError(path, f"must be a checkpoint of the task {task}, got {checkpoint_task}")
    step, processes = tree.get("global_step"), tree.get("processes")
    if type(step) is not int or step < 0 or not isinstance(processes, list):
        raise FileError(path, "must have the number of steps and the states of the processes")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"):
        if key not in tree:
            raise FileError(path, f"must have {key}, without which the run cannot be resumed")


def _check_model(path: Path, tree: Tree, task: Task) -> None:
    """Check that a checkpoint has the model of the configuration, before the model is created.

    Raises:
        FileError: the checkpoint has another model.
    """
    try:
        stored, expected = tree["model"], task.model_arguments()
        for name in expected.keys() | stored.keys():
            if expected.get(name) != stored.get(name):
                raise ValueError(
                    f"{name} must be {expected.get(name)!r} as in config.json and the data, got "
                    f"{stored.get(name)!r}"
                )
        task.codec_from_state(tree["codec"])
        check_weights(expected, model_weights(tree), task.build_model)
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"its model is not that of the run ({error})") from None


def new_model(task: Task) -> nn.Module:
    """Seed the global random generators, and initialise the model of a task."""
    random.seed(task.config.seed)
    torch.manual_seed(task.config.seed)
    model: nn.Module = task.build_model(task.model_arguments())
    steps = task.config.chrono_steps
    if steps is None:
        return model
    for layer in [module for module in model.modules() if isinstance(module, Recurrent)]:
        if not layer.cell.forget_gates + layer.cell.input_gates:
            raise ValueError(
                "new_model: chrono_steps must be None for a cell without forget or input gates, "
                f"got {steps} with {task.config.cell}"
            )
        chrono_(layer, steps)
    return model


def _read_task(config: Config) -> Task:
    """Check that the run can start, and read the task of a configuration with its data."""
    processes = config.devices * config.nodes
    if config.accelerator == "gpu" and not torch.accelerator.is_available():
        raise ValueError(
            "fit: accelerator must be cpu or auto, because torch finds no GPU, got gpu"
        )
    if config.batch_size < processes:
        raise ValueError(
            f"fit: batch_size must be at least the number of processes, {processes}, got "
            f"{config.batch_size}"
        )
    _check_processes(config)
    name = next(name for name, config_class in CONFIGS.items() if config_class is type(config))
    return find_task(name).read(config)


def _check_processes(config: Config) -> None:
    """Check the number of processes against the launcher's environment variables.

    Raises:
        ValueError: torchrun started another number, or several machines have no launcher.
    """
    processes, has_torchrun = config.devices * config.nodes, "TORCHELASTIC_RUN_ID" in os.environ
    if has_torchrun and os.environ["WORLD_SIZE"] != str(processes):
        raise ValueError(
            f"fit: devices must give (times --nodes) the {os.environ['WORLD_SIZE']} processes that "
            f"torchrun started, got {processes}"
        )
    if config.nodes > 1 and not has_torchrun and "SLURM_NTASKS" not in os.environ:
        raise ValueError(
            f"fit: nodes must be 1 unless torchrun starts the processes, got {config.nodes}"
        )


def _train(module: Training, run: Path, progress: TextIO | bool, checkpoint: Path | None) -> Result:
    task: Task = module.task
    config = task.config
    checkpoints = Checkpoints(run)
    interrupt = Interrupt(checkpoints)
    received_signal = 0
    with _quiet(), interrupt.listening():
        trainer = Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy="ddp" if config.devices * config.nodes > 1 else "auto",
            use_distributed_sampler=False,
            precision=_PRECISION[config.precision],
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
            received_signal = interrupt.signal or signal.SIGINT
        except Abort:
            raise KeyboardInterrupt from None
        except (DataError, Diverged, FileError, ProcessesError, torch.OutOfMemoryError):
            raise
        except CORRUPT_FILE_ERRORS as error:
            if checkpoint is None or module.stepped:
                raise
            raise FileError(checkpoint, f"its run cannot be resumed ({error})") from error
    return _result(task, run, trainer.global_step, received_signal, checkpoints)


def _callbacks(
    task: Task,
    run: Path,
    progress: TextIO | bool,
    checkpoints: Checkpoints,
    interrupt: Interrupt,
) -> list[Callback]:
    """The callbacks, in the order in which they measure, show, save and stop."""
    stream = sys.stderr if progress is True else progress
    callbacks: list[Callback] = [Metrics(run / METRICS, task)]
    if stream and is_first():
        callbacks.append(Progress(stream, task))
    callbacks.append(FinalValidation())
    if task.config.watch is not None:
        callbacks.append(Watch(task.config.watch, run))
    if task.config.patience is not None:
        patience = task.config.patience
        callbacks.append(EarlyStopping("validation_loss", patience=patience, check_finite=False))
    return [*callbacks, checkpoints, interrupt]


def _logger(config: Config, run: Path) -> TensorBoardLogger | bool:
    if not config.tensorboard:
        return False
    return TensorBoardLogger(run, name="", version="tensorboard", default_hp_metric=False)


def _result(
    task: Task, run: Path, step: int, received_signal: int, checkpoints: Checkpoints
) -> Result:
    rows: list[dict[str, str]] = []
    with warn_on_error(run / METRICS):
        rows = read_rows(run / METRICS, columns(task))
    validations = [
        row for row in rows if all(row[f"validation_{name}"] for name in task.metric_names)
    ]
    latest = validations[-1] if validations else None
    if is_first():
        with warn_on_error(run / CURVE):
            loss_curve(rows, run / CURVE, task.progress_metric)
    best = run / BEST if (run / BEST).exists() else None
    return Result(
        task=task,
        run=run,
        step=step,
        signal=received_signal,
        last=run / LAST,
        best=best,
        metrics=run / METRICS,
        curve=run / CURVE,
        validation={name: float(latest[f"validation_{name}"]) for name in task.metric_names}
        if latest
        else {},
        validation_step=int(latest["step"]) if latest else None,
        best_validation=checkpoints.scores if best else {},
        best_step=checkpoints.step if best and checkpoints.scores else None,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's messages about devices, loaders and tips."""
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
