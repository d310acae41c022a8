"""A progress line in a terminal; anywhere else, one line for each validation."""

import shutil
import time
from typing import TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override

from unrolled.tasks import Batch, Task
from unrolled.tasks._number_format import format_short
from unrolled.train._module import Training, loss_of

_INTERVAL = 0.1
_SMOOTHING = 0.95
_TAIL = "\x1b[K"
_SHORT = {"bits_per_character": "bits/char"}


class Progress(Callback):
    """Shows training scores, speed and remaining time on one line that is redrawn.

    The loss is a running mean of the training loss. Output that does not go to a terminal has no
    speed and no time, so that equal runs write equal text.
    """

    def __init__(self, stream: TextIO, task: Task) -> None:
        self.stream = stream
        self.task = task
        self.live = stream.isatty()
        self._loss: float | None = None
        self._draw_time = 0.0
        self._start_time = 0.0
        self._first_step = 0
        self._item_count = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_time = time.perf_counter()
        self._first_step = trainer.global_step

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._item_count += batch.total
        if not self.live:
            return
        loss = loss_of(outputs).item()
        mean = loss if self._loss is None else self._loss
        self._loss = _SMOOTHING * mean + (1.0 - _SMOOTHING) * loss
        now = time.perf_counter()
        if now - self._draw_time >= _INTERVAL or trainer.global_step >= trainer.max_steps:
            self._draw_time = now
            self._draw(trainer, self._loss)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Training)
        scores = self.task.format_scores(pl_module.scores, format_short)
        end = f"{_TAIL}\n" if self.live else "\n"
        start = "\r" if self.live else ""
        self.stream.write(f"{start}step {trainer.global_step:>6}  validation {scores}{end}")
        self.stream.flush()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clear()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._clear()

    def _clear(self) -> None:
        if self.live:
            self.stream.write(f"\r{_TAIL}")
            self.stream.flush()

    def _draw(self, trainer: Trainer, loss: float) -> None:
        step, steps = trainer.global_step, trainer.max_steps
        elapsed = time.perf_counter() - self._start_time
        seconds = elapsed / max(1, step - self._first_step) * (steps - step)
        scores = self.task.scores_from_loss(loss)
        scores_text = "  ".join(f"{_SHORT.get(k, k)} {format_short(v)}" for k, v in scores.items())
        rate = self._item_count / elapsed
        rate_text = f"{rate / 1000:.0f}k/s" if rate >= 10_000 else f"{rate:.0f}/s"
        # Fits 80 columns; the bar fills wider terminals, and narrower ones omit the scores first,
        # then the speed and the time.
        position = f"{step:>{len(str(steps))}}/{steps}"
        time_text = f"{rate_text}  {clock(seconds)} left"
        columns = shutil.get_terminal_size().columns
        texts = (f"{position}  {scores_text}  {time_text}", f"{position}  {time_text}", position)
        text = next((text for text in texts if len(text) < columns), "")
        bar_text = bar(step / steps, min(30, columns - len(text) - 3), self.stream.encoding)
        self.stream.write(f"\r{f'{bar_text}  {text}'[: columns - 1]}{_TAIL}")
        self.stream.flush()


def bar(fraction: float, width: int, encoding: str | None = "utf-8") -> str:
    """A bar of `width` characters, filled up to `fraction`; empty if `width` is not positive."""
    full, empty = ("━", "─") if (encoding or "").lower().startswith("utf") else ("#", ".")
    filled = round(max(0, width) * fraction)
    return full * filled + empty * (max(0, width) - filled)


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    total = round(seconds)
    hours, minutes, remainder = total // 3600, total // 60 % 60, total % 60
    return f"{hours}:{minutes:02}:{remainder:02}" if hours else f"{minutes}:{remainder:02}"
