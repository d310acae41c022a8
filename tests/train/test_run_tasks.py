"""Every task in training: the same bits after an interrupt, early stopping, bf16, TensorBoard."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.small_tasks import NAMES, config_of
from tests.support.training_runs import assert_equal_trees, learned_tree, rows_without_seconds
from unrolled import _core
from unrolled.models import load_tree
from unrolled.tasks import find_task, load_trained, measure
from unrolled.train import Diverged, fit, resume
from unrolled.train._callbacks import read_rows
from unrolled.train._watching import read_watch

pytestmark = pytest.mark.slow

EXAMPLES = ["classify", "tag", "forecast", "seq2seq", "copy"]


def small(example: str, folder: Path, **options: Any) -> Any:
    arguments = {"steps": 12, "validate_every": 4, "log_every": 3, "learning_rate": 0.01, **options}
    return config_of(example, folder, **arguments)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_resumed_run_reaches_the_same_bits(
    example: str, tmp_path: Path, interrupt_at: Any
) -> None:
    config = small(example, tmp_path, dropout=0.2, num_layers=2)
    complete = fit(config, tmp_path / "whole", progress=False)
    assert (complete.step, complete.interrupted) == (12, False)
    interrupt_at(6)
    interrupted = fit(config, tmp_path / "parts", progress=False)
    assert (interrupted.step, interrupted.interrupted) == (6, True)
    torch.manual_seed(99)
    second = resume(tmp_path / "parts", progress=False)
    assert (second.step, second.interrupted) == (12, False)
    for name in ("last.safetensors", "best.safetensors"):
        got, expected = (learned_tree(result.run / name) for result in (second, complete))
        assert_equal_trees(got, expected)
    assert rows_without_seconds(second.metrics) == rows_without_seconds(complete.metrics)
    validated = [row["step"] for row in read_rows(complete.metrics) if row["validation_loss"]]
    assert validated == ["4", "8", "12"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_best_checkpoint_has_the_measures_of_its_validation(
    example: str, tmp_path: Path
) -> None:
    """Loaded without its run, it has the scores that the metrics file has at its step."""
    config = small(example, tmp_path, dropout=0.2)
    result = fit(config, tmp_path / "run", progress=False)
    assert result.best is not None
    task = find_task(NAMES[example])
    model, codec = load_trained(result.best, task)
    actual = measure(task.read(config, codec), model)
    rows = [row for row in read_rows(result.metrics) if row["validation_loss"]]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    expected = {name: float(best[f"validation_{name}"]) for name in task.metric_names}
    assert actual == pytest.approx(expected, rel=1e-12)
    assert load_tree(result.best)["global_step"] == int(best["step"])


def test_training_stops_when_the_loss_stays_the_same(tmp_path: Path) -> None:
    """Steps too small to change the loss: no validation is better than the first."""
    config = small("classify", tmp_path, patience=2, steps=60, learning_rate=1e-12)
    result = fit(config, tmp_path / "run", progress=False)
    assert result.step == 12
    assert not result.interrupted
    losses = [row["validation_loss"] for row in read_rows(result.metrics) if row["validation_loss"]]
    assert len(losses) == 3
    assert len(set(losses)) == 1


def test_training_continues_while_the_loss_falls(tmp_path: Path) -> None:
    config = small("classify", tmp_path, patience=1, steps=24, schedule="constant")
    assert fit(config, tmp_path / "run", progress=False).step == 24


@pytest.mark.parametrize("example", ["classify", "forecast", "seq2seq"])
def test_bfloat16_learns_as_float32_does(example: str, tmp_path: Path) -> None:
    losses = {}
    for precision in ("32", "bf16"):
        config = small(example, tmp_path, precision=precision, validate_every=3)
        result = fit(config, tmp_path / precision, progress=False)
        rows = [row["validation_loss"] for row in read_rows(result.metrics)]
        losses[precision] = [float(loss) for loss in rows if loss]
        weights = load_tree(result.last)["state_dict"].values()
        assert {weight.dtype for weight in weights} == {torch.float32}
    assert losses["bf16"][-1] < losses["bf16"][0]
    assert losses["bf16"] != losses["32"]
    assert losses["bf16"] == pytest.approx(losses["32"], rel=0.1)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_core_gets_the_precision(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether products are in bfloat16, in each sweep of a run; parameters are in float32."""
    made = []
    original = _core.CompiledSweep

    def make(*arguments: Any) -> _core.CompiledSweep:
        sweep = original(*arguments)
        made.append(sweep.bf16_products)
        return sweep

    monkeypatch.setattr(_core, "CompiledSweep", make)
    fit(small("classify", tmp_path, precision=precision), tmp_path / "run", progress=False)
    assert set(made) == {precision == "bf16"}


def test_tensorboard_reads_what_the_metrics_file_holds(tmp_path: Path) -> None:
    result = fit(small("classify", tmp_path, tensorboard=True), tmp_path / "run", progress=False)
    events = EventAccumulator(str(result.run / "tensorboard")).Reload()
    rows = read_rows(result.metrics)
    names = ["training_loss", "validation_loss", "validation_accuracy", "validation_macro_f1"]
    for name in names:
        expected = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        actual = [(event.step, event.value) for event in events.Scalars(name)]
        assert len(actual) >= 3
        assert [step for step, _ in actual] == [step for step, _ in expected], name
        assert [v for _, v in actual] == pytest.approx([v for _, v in expected], abs=2e-6), name


@pytest.mark.parametrize("example", ["classify", "tag", "forecast", "seq2seq"])
def test_a_loss_that_is_not_finite_ends_the_run(example: str, tmp_path: Path) -> None:
    config = small(example, tmp_path, learning_rate=1e10, validate_every=1, steps=40)
    message = r"the loss must be finite, got (nan|inf) at step (\d+); .*--learning-rate"
    with pytest.raises(Diverged, match=message) as caught:
        fit(config, tmp_path / "run", progress=False)
    tree = load_tree(tmp_path / "run" / "last.safetensors")
    step = int(re.search(r"at step (\d+)", str(caught.value)).group(1))
    assert 0 < tree["global_step"] < step
    for name, weight in tree["state_dict"].items():
        assert weight.isfinite().all(), name
    losses = [row["training_loss"] for row in read_rows(tmp_path / "run" / "metrics.csv")]
    assert all(math.isfinite(float(loss)) for loss in losses if loss)


def test_layers_are_watched_and_the_run_stays_the_same(tmp_path: Path) -> None:
    """Every four steps, the decoder and the encoder; weights are those of a run without."""
    results = []
    for watch in (None, 4):
        config = small("seq2seq", tmp_path, watch=watch, steps=8)
        results.append(fit(config, tmp_path / str(watch), progress=False))
    states = [load_tree(result.last)["state_dict"] for result in results]
    assert_equal_trees(states[1], states[0])
    rows = read_watch(results[1].run / "watch.csv")
    assert not (results[0].run / "watch.csv").exists()
    assert {row["step"] for row in rows} == {"4", "8"}
    assert {row["module"] for row in rows} == {"model.encoder", "model.decoder"}
    measures = {"gradient_norm", "left_saturated", "right_saturated", "spectral_radius"}
    assert {row["measure"] for row in rows} == measures
