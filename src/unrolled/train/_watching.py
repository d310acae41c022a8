"""Measurements of the recurrent layers during training, as rows of a CSV file.

The measurements are those of `unrolled.diagnostics`; this file decides when they are taken, and
keeps the rows of a resumed run.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override

from unrolled.diagnostics._gates import gate_saturation
from unrolled.diagnostics._gradients import gradient_by_lag
from unrolled.diagnostics._matrices import recurrent_matrices
from unrolled.diagnostics._steps import Call, layers_of, record_calls
from unrolled.io import write
from unrolled.nn import Recurrent
from unrolled.tasks._number_format import format_full
from unrolled.train._rows import append_rows, complete_rows, csv_text, warn_on_error

WATCH = "watch.csv"
WATCH_COLUMNS = ("step", "module", "layer", "reverse", "measure", "name", "value")


class Watch(Callback):
    """Measures every `unrolled.nn.Recurrent` during training, on the batch of the current step.

    Every `every` steps, the updated weights are measured on the first sequences of that step's
    batch, with the initial states that the layer was called with. Each row of `watch.csv` has one
    number:

        step, module (the layer's name), layer, reverse (0 or 1), measure, name, value

    - `gradient_norm`, with its lag as the name: see `unrolled.diagnostics.gradient_by_lag`;
    - `left_saturated` and `right_saturated`, with the gate as the name: the fraction of steps,
      sequences and units, see `gate_saturation`;
    - `spectral_radius`, with product and gate as the name (`recurrent.f`): see
      `recurrent_matrices`.

    Training is not affected: torch's generators are not used, and no weight or gradient changes. A
    resumed run removes the rows after its checkpoint and measures them again. Resets within the
    batch are ignored.

    Args:
        every: optimizer steps between measurements, 1 or more.
        folder: the folder for `watch.csv`; None for the trainer's `default_root_dir`.
        lags: the lags at which the gradient's norm is written, up to the length of the batch.
        rows: the largest number of sequences to measure on.
        directions: the largest number of random directions of the state to estimate gradients from.

    Raises:
        ValueError: a number is below 1; or, at the start of training, the module has no recurrent
            layer.
    """

    def __init__(
        self,
        every: int,
        folder: Path | None = None,
        *,
        lags: Sequence[int] = (1, 5, 20, 50, 100),
        rows: int = 2,
        directions: int = 16,
    ) -> None:
        minima = {"every": every, "lags": min(lags, default=0), "rows": rows}
        for name, value in (minima | {"directions": directions}).items():
            if value < 1:
                raise ValueError(f"Watch: {name} must be at least 1, got {value}")
        self.every = every
        self.folder = folder
        self.lags = tuple(lags)
        self.rows = rows
        self.directions = directions
        self._recording = ExitStack()
        self._calls: dict[str, Call] = {}
        self._measured_step = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layers_of(pl_module)
        self._measured_step = trainer.global_step
        if trainer.is_global_zero:
            path = self._path(trainer)
            with warn_on_error(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = [r for r in read_watch(path) if int(r["step"]) <= trainer.global_step]
                write(path, csv_text([WATCH_COLUMNS, *(tuple(r.values()) for r in rows)]).encode())

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._recording.close()
        if trainer.is_global_zero and (trainer.global_step + 1) % self.every == 0:
            self._calls = self._recording.enter_context(
                record_calls(layers_of(pl_module), self.rows)
            )

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        batch_idx: int,
    ) -> None:
        self._recording.close()
        calls, self._calls = self._calls, {}
        # With accumulated gradients a step has several batches; the last one is measured.
        step = trainer.global_step
        if not calls or step % self.every or step == self._measured_step:
            return
        self._measured_step = step
        layers = layers_of(pl_module)
        rows = [
            {"step": step, "module": name, **row}
            for name, call in calls.items()
            if call.x is not None
            for row in self._rows(layers[name], call)
        ]
        path = self._path(trainer)
        with warn_on_error(path):
            values = [[str(row[name]) for name in WATCH_COLUMNS] for row in rows]
            append_rows(path, WATCH_COLUMNS, values)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._recording.close()

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.folder or trainer.default_root_dir) / WATCH

    def _rows(self, layer: Recurrent, call: Call) -> Iterator[dict[str, object]]:
        assert call.x is not None
        T = call.x.shape[1] if layer.batch_first and call.x.dim() == 3 else call.x.shape[0]
        lags = [lag for lag in self.lags if lag <= T]
        if lags:
            gradients = gradient_by_lag(
                layer, call.x, call.hx, lags=max(lags), directions=self.directions
            )
            for gradient in gradients:
                for lag in lags:
                    yield _row(gradient, "gradient_norm", str(lag), gradient.norms[lag].item())
        for gate in gate_saturation(layer, call.x, call.hx):
            yield _row(gate, "left_saturated", gate.gate, gate.left_fraction)
            yield _row(gate, "right_saturated", gate.gate, gate.right_fraction)
        for matrix in recurrent_matrices(layer):
            if matrix.radius is not None:
                name = ".".join(filter(None, (matrix.product, matrix.gate)))
                yield _row(matrix, "spectral_radius", name, matrix.radius)


class _Measurement(Protocol):
    """A measurement of one layer in one direction."""

    @property
    def layer(self) -> int: ...

    @property
    def reverse(self) -> bool: ...


def _row(measurement: _Measurement, measure: str, name: str, value: float) -> dict[str, object]:
    return {
        "layer": measurement.layer,
        "reverse": int(measurement.reverse),
        "measure": measure,
        "name": name,
        "value": format_full(value),
    }


def read_watch(path: Path) -> list[dict[str, str]]:
    """The complete rows of a `watch.csv`; empty if the file does not exist.

    Raises:
        OSError: the file cannot be read.
    """
    return [
        row
        for row in complete_rows(path, WATCH_COLUMNS)
        if all(row.values()) and row["step"].isdecimal()
    ]
