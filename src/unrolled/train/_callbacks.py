"""Callbacks of training: the metrics file, the graceful interrupt, and the final validation."""

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override

from unrolled.io import write
from unrolled.tasks import Batch, Task
from unrolled.tasks._number_format import format_full
from unrolled.train._checkpoint import Checkpoints
from unrolled.train._module import Training, loss_of
from unrolled.train._rows import append_rows, complete_rows, csv_text, warn_on_error


class Interrupted(Exception):  # noqa: N818  it is a request of the user, not an error
    """Training was stopped by the user; the last checkpoint has the state of the last step."""


class Interrupt(Callback):
    """Stops training at Ctrl-C or SIGTERM: finishes the step and writes the last checkpoint.

    If a validation is due or running, it is finished first, so that the resumed run has the same
    rows and the same best checkpoint as one that was not interrupted. A second Ctrl-C stops
    immediately, and leaves the previous checkpoint. If one of several processes gets the signal,
    all of them stop.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.signal = 0
        self._trainer: Trainer | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals within the block; outside the main thread, which gets none, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        handlers = [signal.signal(number, self._request) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, handlers, strict=True):
                signal.signal(number, handler)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        if self.signal:
            raise Abort
        self.signal = signum
        if self._trainer is not None:
            # Lightning also handles SIGTERM, and would stop before a validation that is due.
            self._trainer._signal_connector.received_sigterm = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer

    def _requested(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self.signal != 0
        return trainer.strategy.reduce_boolean_decision(self.signal != 0, all=False)

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if self._requested(trainer) and not _validation_due(trainer):
            self.checkpoints.save_last(trainer)
            raise Interrupted

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._requested(trainer) and trainer.global_step < trainer.max_steps:
            raise Interrupted


class Abort(BaseException):
    """The second Ctrl-C. Not KeyboardInterrupt, on which Lightning exits the process."""


class FinalValidation(Callback):
    """Validates after the last step even if it is not a multiple of the interval."""

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        # Lightning validates when it stops.
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True


class Metrics(Callback):
    """Writes scores to a CSV file and to the trainer's logger (TensorBoard): a row every
    `config.log_every` steps, and one for each validation.

    The training loss of a row is the mean since the previous row. `seconds` is the time of training
    and validation, over all resumed parts of the run. Of several processes one writes.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self.path = path
        self.task = task
        self.columns = columns(task)
        self.seconds = 0.0
        self.total = 0.0
        self.steps = 0
        self.items = 0
        self._start_time = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_time = time.perf_counter() - self.seconds
        if not trainer.is_global_zero:
            return
        with warn_on_error(self.path):
            rows = [
                tuple(row.values())
                for row in read_rows(self.path, self.columns)
                if int(row["step"]) <= trainer.global_step
            ]
            write(self.path, csv_text([self.columns, *rows]).encode())

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        # The mean over the processes is the loss of the batch.
        loss = trainer.strategy.reduce(loss_of(outputs).detach(), reduce_op="mean")
        self.total += float(loss)
        self.steps += 1
        self.items += batch.total
        if self.steps >= self.task.config.log_every:
            self._row(trainer, "training", self.task.scores_from_loss(self.total / self.steps))
            self.total, self.steps = 0.0, 0

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Training)
        self._row(trainer, "validation", pl_module.scores)

    @override
    def state_dict(self) -> dict[str, object]:
        self.seconds = time.perf_counter() - self._start_time
        return {name: getattr(self, name) for name in ("seconds", "total", "steps", "items")}

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        for name in ("seconds", "total", "steps", "items"):
            setattr(self, name, state_dict[name])

    def _row(self, trainer: Trainer, part: str, scores: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        prefixed = {f"{part}_{name}": value for name, value in scores.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {
            "step": trainer.global_step,
            self.task.unit: self.items,
            "seconds": f"{time.perf_counter() - self._start_time:.2f}",
            "learning_rate": format_full(rate),
            **{name: format_full(value) for name, value in prefixed.items()},
        }
        with warn_on_error(self.path):
            append_rows(self.path, self.columns, [[str(row.get(c, "")) for c in self.columns]])
        if trainer.logger is not None:
            trainer.logger.log_metrics(prefixed | {"learning_rate": rate}, trainer.global_step)


def columns(task: Task) -> tuple[str, ...]:
    """The columns of a task's metrics file."""
    return (
        "step",
        task.unit,
        "seconds",
        "learning_rate",
        *(f"training_{name}" for name in task.loss_metrics),
        *(f"validation_{name}" for name in task.metric_names),
    )


def read_rows(path: Path, names: Sequence[str] | None = None) -> list[dict[str, str]]:
    """The rows of a metrics file, without those that are incomplete or have a value that is not a
    number; empty if the file does not exist, or has other columns than `names`.

    Raises:
        OSError: the file cannot be read.
    """
    return [row for row in complete_rows(path, names) if _is_numeric(row)]


def _is_numeric(row: dict[str, str]) -> bool:
    """Whether each value is a number or empty, and there is a step."""
    try:
        return int(row["step"]) >= 0 and all(not v or float(v) is not None for v in row.values())
    except (KeyError, TypeError, ValueError):
        return False


def _validation_due(trainer: Trainer) -> bool:
    interval = trainer.val_check_batch or math.inf
    step = trainer.global_step
    return step % interval == 0 or step >= trainer.max_steps
