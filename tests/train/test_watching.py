"""Measurements during training: right, harmless to the run, and whole after a restart."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from unrolled.diagnostics import gate_saturation, gradient_by_lag, recurrent_matrices
from unrolled.nn import GRU, LSTM
from unrolled.train import Watch
from unrolled.train._watching import WATCH, WATCH_COLUMNS, read_watch

pytestmark = [
    pytest.mark.slow,
    # Lightning's own, of torch and of small data.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*(many workers|dataloader is not resumable).*"),
]

T, N, WIDTH, H = 12, 3, 4, 5


class Learner(LightningModule):
    """Two layers, one of them fed with dropout; learns to echo."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.dropout = nn.Dropout(0.3)
        self.below = LSTM(WIDTH, H)
        self.above = GRU(H, WIDTH, batch_first=True)
        self.inputs: list[tuple[Tensor, Tensor]] = []  # of each layer

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = self.dropout(batch)
        hidden = self.below(x)[0].transpose(0, 1)
        self.inputs.append((x.detach(), hidden.detach()))
        output, _ = self.above(hidden)
        return (output.transpose(0, 1)[1:] - batch[:-1]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Batches(Iterable[Tensor]):
    def __init__(self, count: int) -> None:
        self.items = list(
            torch.randn(count, T, N, WIDTH, generator=torch.Generator().manual_seed(0))
        )

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def run(
    folder: Path, steps: int, *callbacks: Any, resume: Path | None = None, **options: Any
) -> Any:
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, callbacks=list(callbacks), default_root_dir=folder,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    torch.manual_seed(7)
    learner = Learner()
    trainer.fit(learner, Batches(8), ckpt_path=resume)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return learner


def test_rows_are_the_measurements(tmp_path: Path) -> None:
    learner = run(tmp_path, 5, Watch(5, lags=(1, 3, 99), rows=2, directions=99))
    rows = read_watch(tmp_path / WATCH)
    assert {row["step"] for row in rows} == {"5"}
    x, hidden = learner.inputs[4]
    expected = {}
    for module, layer, inputs in (
        ("below", learner.below, x[:, :2]),
        ("above", learner.above, hidden[:2]),
    ):
        (norms,) = gradient_by_lag(layer, inputs)
        expected |= {(module, "gradient_norm", str(k)): norms.norms[k].item() for k in (1, 3)}
        for gate in gate_saturation(layer, inputs):
            expected[module, "left_saturated", gate.gate] = gate.left_fraction
            expected[module, "right_saturated", gate.gate] = gate.right_fraction
        for matrix in recurrent_matrices(layer):
            expected[module, "spectral_radius", f"recurrent.{matrix.gate}"] = matrix.radius
    actual = {(r["module"], r["measure"], r["name"]): float(r["value"]) for r in rows}
    assert len(actual) == len(rows)
    assert actual == pytest.approx(expected, rel=1e-12)
    assert {(r["layer"], r["reverse"]) for r in rows} == {("0", "0")}


def test_the_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    with_it = run(tmp_path / "a", 6, Watch(2, tmp_path / "elsewhere")).state_dict()
    without = run(tmp_path / "b", 6).state_dict()
    for name, value in without.items():
        assert torch.equal(with_it[name], value), name
    assert {row["step"] for row in read_watch(tmp_path / "elsewhere" / WATCH)} == {"2", "4", "6"}
    assert not (tmp_path / "a" / WATCH).exists()


def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(tmp_path: Path) -> None:
    run(tmp_path / "whole", 8, Watch(2))
    run(tmp_path / "parts", 5, Watch(2))
    path = tmp_path / "parts" / WATCH
    # What a killed process may write after its last checkpoint.
    with open(path, "a") as file:
        file.write("6,below,0,0,spectral_radius,recurrent.i,9\n8,below,0,0,spec")
    previous = [row for row in read_watch(path) if int(row["step"]) <= 5]
    run(tmp_path / "parts", 8, Watch(2), resume=tmp_path / "parts" / "5.ckpt")
    rows = read_watch(path)
    assert rows[: len(previous)] == previous
    assert [row["step"] for row in rows] == [
        row["step"] for row in read_watch(tmp_path / "whole" / WATCH)
    ]
    assert "9" not in {row["value"] for row in rows}
    assert path.read_text().startswith(",".join(WATCH_COLUMNS) + "\n")


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    run(tmp_path, 4, Watch(2), accumulate_grad_batches=2)
    keys = [tuple(row.values())[:-1] for row in read_watch(tmp_path / WATCH)]
    assert len(keys) == len(set(keys))
    assert {key[0] for key in keys} == {"2", "4"}


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    for arguments, message in (
        ({"every": 0}, "Watch: every must be at least 1, got 0"),
        ({"every": 1, "lags": (3, 0)}, "Watch: lags must be at least 1, got 0"),
        ({"every": 1, "rows": 0}, "Watch: rows must be at least 1, got 0"),
        ({"every": 1, "directions": 0}, "Watch: directions must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Watch(**arguments)
