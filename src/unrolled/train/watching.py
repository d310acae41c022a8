"""Measurements of the recurrent layers while they learn, as rows of a CSV.

What is measured is `unrolled.diagnostics`'s; here is when, and that a run which goes on keeps its
rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from unrolled.diagnostics.gates import gate_saturation
from unrolled.diagnostics.gradients import gradient_by_lag
from unrolled.diagnostics.matrices import recurrent_matrices
from unrolled.diagnostics.steps import Call, layers_of, listening
from unrolled.io import write
from unrolled.nn import Recurrent
from unrolled.tasks.number_format import format_full
from unrolled.train.rows import append_rows, complete_rows, csv_text, warn_of

__all__ = ["WATCH", "WATCH_COLUMNS", "Watch", "read_watch"]

WATCH = "watch.csv"
WATCH_COLUMNS = ("step", "module", "layer", "reverse", "measure", "name", "value")


class Watch(Callback):
    """Measure every `unrolled.nn.Recurrent` in training, on the batch that it has just seen.

    After every `every` steps the weights as they are then are measured on the first sequences of
    that step's batch, with the states that the layer was called with. Each row of `watch.csv` is
    one number:

        step, module (the layer's name), layer, reverse (0 or 1), measure, name, value

    - `gradient_norm`, named by its lag: see `unrolled.diagnostics.gradient_by_lag`;
    - `left_saturated` and `right_saturated`, named by the gate: the share of steps, sequences and
      units, see `gate_saturation`;
    - `spectral_radius`, named by product and gate, `recurrent.f`: see `recurrent_matrices`.

    Nothing is drawn from torch's generators and no weight or gradient is touched: the run is the
    same with and without. In a run that goes on from a checkpoint, rows after it are dropped and
    measured anew. Resets within the batch are not seen.

    Args:
        every: optimizer steps between measurements, 1 or more.
        folder: of `watch.csv`; None for the trainer's `default_root_dir`.
        lags: those of which the gradient's norm is written; longer ones than the batch are not.
        rows: sequences to measure on, at most.
        directions: of the state, at most, to estimate gradients with.

    Raises:
        ValueError: a number is below 1; when training starts, the module has no recurrent layer.
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
        least = {"every": every, "lags": min(lags, default=0), "rows": rows}
        for name, value in (least | {"directions": directions}).items():
            if value < 1:
                raise ValueError(f"{name}: wanted at least 1, got {value}")
        self.every = every
        self.folder = folder
        self.lags = tuple(lags)
        self.rows = rows
        self.directions = directions
        self._listening = ExitStack()
        self._calls: dict[str, Call] = {}
        self._measured = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layers_of(pl_module)
        self._measured = trainer.global_step
        if trainer.is_global_zero:
            path = self._path(trainer)
            with warn_of(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = [r for r in read_watch(path) if int(r["step"]) <= trainer.global_step]
                write(path, csv_text([WATCH_COLUMNS, *(tuple(r.values()) for r in rows)]).encode())

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._listening.close()
        if trainer.is_global_zero and (trainer.global_step + 1) % self.every == 0:
            self._calls = self._listening.enter_context(listening(layers_of(pl_module), self.rows))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._listening.close()
        calls, self._calls = self._calls, {}
        # With accumulated gradients several batches are one step: the last of them is measured.
        step = trainer.global_step
        if not calls or step % self.every or step == self._measured:
            return
        self._measured = step
        layers = layers_of(pl_module)
        rows = [
            {"step": step, "module": name, **row}
            for name, call in calls.items()
            if call.x is not None
            for row in self._rows(layers[name], call)
        ]
        path = self._path(trainer)
        with warn_of(path):
            values = [[str(row[name]) for name in WATCH_COLUMNS] for row in rows]
            append_rows(path, WATCH_COLUMNS, values)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._listening.close()

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.folder or trainer.default_root_dir) / WATCH

    def _rows(self, layer: Recurrent, call: Call) -> Iterator[dict[str, Any]]:
        assert call.x is not None
        T = call.x.shape[1] if layer.batch_first and call.x.dim() == 3 else call.x.shape[0]
        lags = [lag for lag in self.lags if lag <= T]
        if lags:
            found = gradient_by_lag(
                layer, call.x, call.hx, lags=max(lags), directions=self.directions
            )
            for norms in found:
                for lag in lags:
                    yield _row(norms, "gradient_norm", str(lag), norms.norms[lag].item())
        for gate in gate_saturation(layer, call.x, call.hx):
            yield _row(gate, "left_saturated", gate.gate, gate.left_share)
            yield _row(gate, "right_saturated", gate.gate, gate.right_share)
        for matrix in recurrent_matrices(layer):
            if matrix.radius is not None:
                name = ".".join(filter(None, (matrix.product, matrix.gate)))
                yield _row(matrix, "spectral_radius", name, matrix.radius)


def _row(of: Any, measure: str, name: str, value: float) -> dict[str, Any]:
    return {
        "layer": of.layer,
        "reverse": int(of.reverse),
        "measure": measure,
        "name": name,
        "value": format_full(value),
    }


def read_watch(path: Path) -> list[dict[str, str]]:
    """The rows of a `watch.csv`; none if it does not exist, and none that are incomplete.

    Raises:
        OSError: the file cannot be read.
    """
    return [
        row
        for row in complete_rows(path, WATCH_COLUMNS)
        if all(row.values()) and row["step"].isdecimal()
    ]
