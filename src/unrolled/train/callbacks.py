"""What happens beside the steps: the metrics file, the graceful interrupt, the last validation."""

import csv
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from unrolled.io import write
from unrolled.tasks import Score, Window
from unrolled.train.checkpoint import Checkpoints

__all__ = [
    "COLUMNS",
    "Abort",
    "FinalValidation",
    "Interrupt",
    "Interrupted",
    "Metrics",
    "read_rows",
]

COLUMNS = (
    "step",
    "tokens",
    "seconds",
    "learning_rate",
    "training_loss",
    "training_bits_per_character",
    "training_perplexity",
    "validation_loss",
    "validation_bits_per_character",
    "validation_perplexity",
)


class Interrupted(Exception):  # noqa: N818  what happened is no error
    """Training stopped at the user's request; the last checkpoint holds all that was learned."""


class Interrupt(Callback):
    """Stop at Ctrl-C without loss: finish the step, write the last checkpoint, leave.

    Where a validation is due or under way it is finished first, so that the resumed run has the
    rows and the best checkpoint that an undisturbed one has. A second Ctrl-C stops at once and
    leaves the checkpoint before.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for Ctrl-C; where no signals reach (another thread), do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise Abort
        self.requested = True

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.requested and not _validation_due(trainer):
            self.checkpoints.save_last(trainer)
            raise Interrupted

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.requested and trainer.global_step < trainer.max_steps:
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
    """Write the measures as CSV: a row every `every` steps, and one for each validation.

    The training loss of a row is the mean since the row before. `seconds` counts training and
    validation, over all resumed parts of the run.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every
        self.seconds = 0.0
        self.total = 0.0
        self.steps = 0
        self.tokens = 0
        self._began = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter() - self.seconds
        kept = [row for row in read_rows(self.path) if int(row["step"]) <= trainer.global_step]
        lines = [",".join(COLUMNS), *(",".join(row[c] for c in COLUMNS) for row in kept)]
        write(self.path, ("\n".join(lines) + "\n").encode())

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Window,
        batch_idx: int,
    ) -> None:
        loss: Tensor = outputs["loss"]
        self.total += loss.item()
        self.steps += 1
        self.tokens += batch.targets.numel()
        if self.steps >= self.every:
            self._row(trainer, "training", self.total / self.steps)
            self.total, self.steps = 0.0, 0

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._row(trainer, "validation", trainer.callback_metrics["validation_loss"].item())

    @override
    def state_dict(self) -> dict[str, Any]:
        self.seconds = time.perf_counter() - self._began
        return {name: getattr(self, name) for name in ("seconds", "total", "steps", "tokens")}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def _row(self, trainer: Trainer, part: str, loss: float) -> None:
        measured = Score(loss)
        row = {
            "step": trainer.global_step,
            "tokens": self.tokens,
            "seconds": f"{time.perf_counter() - self._began:.2f}",
            "learning_rate": f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}",
            f"{part}_loss": f"{loss:.6f}",
            f"{part}_bits_per_character": f"{measured.bits_per_character:.6f}",
            f"{part}_perplexity": f"{measured.perplexity:.6f}",
        }
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n").writerow(row)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file; none if it does not exist, and none that are incomplete."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row.values() and row.keys() == set(COLUMNS)]


def _validation_due(trainer: Trainer) -> bool:
    interval = trainer.val_check_batch or math.inf
    step = trainer.global_step
    return step % interval == 0 or step >= trainer.max_steps
