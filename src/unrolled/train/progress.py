"""A line that shows how training goes; where no terminal listens, a line for each validation."""

import shutil
import time
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from unrolled.tasks import Batch, Task
from unrolled.tasks.number_format import format_short
from unrolled.train.module import Training

__all__ = ["Progress", "bar", "clock"]

_INTERVAL = 0.1
_SMOOTHING = 0.95
_TAIL = "\x1b[K"
_SHORT = {"bits_per_character": "bits/char"}


class Progress(Callback):
    """Loss and what follows from it, rate and remaining time, on one line that is redrawn.

    The loss is a running mean of the training loss. What is written where no terminal listens
    depends on nothing but the run: no rate, no time.
    """

    def __init__(self, stream: TextIO, task: Task) -> None:
        self.stream = stream
        self.task = task
        self.live = stream.isatty()
        self._loss: float | None = None
        self._drawn = 0.0
        self._began = 0.0
        self._first_step = 0
        self._items = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        self._first_step = trainer.global_step

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._items += batch.total
        if not self.live:
            return
        loss = outputs["loss"].item()
        before = loss if self._loss is None else self._loss
        self._loss = _SMOOTHING * before + (1.0 - _SMOOTHING) * loss
        now = time.perf_counter()
        if now - self._drawn >= _INTERVAL or trainer.global_step >= trainer.max_steps:
            self._drawn = now
            self._draw(trainer, self._loss)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Training)
        measured = self.task.format_scores(pl_module.scores, format_short)
        end = f"{_TAIL}\n" if self.live else "\n"
        start = "\r" if self.live else ""
        self.stream.write(f"{start}step {trainer.global_step:>6}  validation {measured}{end}")
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
        elapsed = time.perf_counter() - self._began
        left = elapsed / max(1, step - self._first_step) * (steps - step)
        shown = self.task.scores_from_loss(loss)
        measured = "  ".join(f"{_SHORT.get(k, k)} {format_short(v)}" for k, v in shown.items())
        rate = self._items / elapsed
        often = f"{rate / 1000:.0f}k/s" if rate >= 10_000 else f"{rate:.0f}/s"
        # Short enough for 80 columns; the bar takes what is left of wider ones, and narrower ones
        # go without the measures before they lose the time.
        place, time_left = f"{step:>{len(str(steps))}}/{steps}", f"{often}  {clock(left)} left"
        columns = shutil.get_terminal_size().columns
        texts = (f"{place}  {measured}  {time_left}", f"{place}  {time_left}", place)
        text = next((text for text in texts if len(text) < columns), "")
        drawn = bar(step / steps, min(30, columns - len(text) - 3), self.stream.encoding)
        self.stream.write(f"\r{f'{drawn}  {text}'[: columns - 1]}{_TAIL}")
        self.stream.flush()


def bar(part: float, width: int, encoding: str | None = "utf-8") -> str:
    """A bar of `width` characters, filled to `part` between 0 and 1; empty if it has no room."""
    full, empty = ("━", "─") if (encoding or "").lower().startswith("utf") else ("#", ".")
    filled = round(max(0, width) * part)
    return full * filled + empty * (max(0, width) - filled)


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
