"""What happens beside the steps: the metrics file, the graceful interrupt, the last validation."""

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from unrolled.io import write
from unrolled.tasks import Batch, Task
from unrolled.tasks.number_format import format_full
from unrolled.train.checkpoint import Checkpoints
from unrolled.train.module import Training
from unrolled.train.rows import append_rows, complete_rows, csv_text, warn_of

__all__ = [
    "Abort",
    "FinalValidation",
    "Interrupt",
    "Interrupted",
    "Metrics",
    "columns",
    "read_rows",
]


class Interrupted(Exception):  # noqa: N818  what happened is no error
    """Training stopped at the user's request; the last checkpoint holds all that was learned."""


class Interrupt(Callback):
    """Stop at Ctrl-C or SIGTERM without loss: finish the step, write the last checkpoint, leave.

    Where a validation is due or under way it is finished first, so that the resumed run has the
    rows and the best checkpoint that an undisturbed one has. A second Ctrl-C stops at once and
    leaves the checkpoint before. Of several processes all leave when one was asked.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.signal = 0
        self._trainer: Trainer | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for signals; where none reach (another thread), do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(kind, self._ask) for kind in kinds]
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self.signal:
            raise Abort
        self.signal = signum
        if self._trainer is not None:
            # Lightning hears SIGTERM too, and would leave before a validation that is due.
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
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._requested(trainer) and not _validation_due(trainer):
            self.checkpoints.save_last(trainer)
            raise Interrupted

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._requested(trainer) and trainer.global_step < trainer.max_steps:
            raise Interrupted


class Abort(BaseException):
    """The second Ctrl-C. Not KeyboardInterrupt, with which Lightning ends the process."""


class FinalValidation(Callback):
    """Validate after the last step also where it is no multiple of the interval."""

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning validates when it is told to stop.
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True


class Metrics(Callback):
    """Write the measures as CSV: a row every `every` steps, and one for each validation; to the
    trainer's logger (TensorBoard) as well.

    The training loss of a row is the mean since the row before. `seconds` counts training and
    validation, over all resumed parts of the run. One process of several writes.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self.path = path
        self.task = task
        self.columns = columns(task)
        self.seconds = 0.0
        self.total = 0.0
        self.steps = 0
        self.items = 0
        self._began = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter() - self.seconds
        if not trainer.is_global_zero:
            return
        with warn_of(self.path):
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
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        # Of the own share: the mean over processes is the loss of the whole batch.
        loss: Tensor = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
        self.total += loss.item()
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
    def state_dict(self) -> dict[str, Any]:
        self.seconds = time.perf_counter() - self._began
        return {name: getattr(self, name) for name in ("seconds", "total", "steps", "items")}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in ("seconds", "total", "steps", "items"):
            setattr(self, name, state_dict[name])

    def _row(self, trainer: Trainer, part: str, scores: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        named = {f"{part}_{name}": value for name, value in scores.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {
            "step": trainer.global_step,
            self.task.unit: self.items,
            "seconds": f"{time.perf_counter() - self._began:.2f}",
            "learning_rate": format_full(rate),
            **{name: format_full(value) for name, value in named.items()},
        }
        with warn_of(self.path):
            append_rows(self.path, self.columns, [[str(row.get(c, "")) for c in self.columns]])
        if trainer.logger is not None:
            trainer.logger.log_metrics(named | {"learning_rate": rate}, trainer.global_step)


def columns(task: Task) -> tuple[str, ...]:
    """Of a task's metrics file."""
    return (
        "step",
        task.unit,
        "seconds",
        "learning_rate",
        *(f"training_{name}" for name in task.loss_metrics),
        *(f"validation_{name}" for name in task.metric_names),
    )


def read_rows(path: Path, wanted: Sequence[str] | None = None) -> list[dict[str, str]]:
    """The rows of a metrics file, of the wanted columns if given; none if it does not exist, and
    none that are incomplete or hold a value that is not a number.

    Raises:
        OSError: the file cannot be read.
    """
    return [row for row in complete_rows(path, wanted) if _of_numbers(row)]


def _of_numbers(row: dict[str, str]) -> bool:
    """Whether each value is a number or empty, and the step is there."""
    try:
        return int(row["step"]) >= 0 and all(not v or float(v) is not None for v in row.values())
    except (KeyError, TypeError, ValueError):
        return False


def _validation_due(trainer: Trainer) -> bool:
    interval = trainer.val_check_batch or math.inf
    step = trainer.global_step
    return step % interval == 0 or step >= trainer.max_steps
