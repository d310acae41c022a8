"""Training runs: they learn, they stop gracefully, and they go on to the same bits."""

import csv
import dataclasses
import io
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.support.training_runs import assert_equal_trees, learned_tree, rows_without_seconds
from unrolled.config import LanguageModelConfig
from unrolled.diagnostics import loss_curve
from unrolled.io import FileError
from unrolled.models import load_tree
from unrolled.tasks import (
    DataError,
    LanguageModelScore,
    Shard,
    load_language_model,
    next_token_loss,
    read_text,
    score_language_model,
)
from unrolled.tasks._language_modeling import LanguageModeling, make_windows
from unrolled.train import Result, fit, resume
from unrolled.train._callbacks import Metrics, columns, read_rows
from unrolled.train._module import Training, learning_rate_factor
from unrolled.train._progress import bar, clock
from unrolled.train._run import new_model

pytestmark = pytest.mark.slow

STEPS = 30


@pytest.fixture
def config(tmp_path: Path) -> LanguageModelConfig:
    """Dropout draws from torch's generator; the training text holds nine windows, so 30 wrap."""
    (tmp_path / "text").write_bytes(read_text(limit=1300))
    return LanguageModelConfig(
        paths=(str(tmp_path / "text"),),
        hidden_size=8,
        embedding_size=4,
        num_layers=2,
        dropout=0.2,
        batch_size=4,
        window=32,
        validation_fraction=0.1,
        steps=STEPS,
        validate_every=10,
        log_every=4,
        accelerator="cpu",
    )


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize(
    ("step", "validation"), [(1, False), (13, False), (18, False), (20, False), (20, True)]
)
def test_a_resumed_run_reaches_the_same_bits(
    tmp_path: Path, config: LanguageModelConfig, interrupt_at: Any, cell: str, step: int,
    validation: bool,
) -> None:  # fmt: skip
    config = dataclasses.replace(config, cell=cell)
    complete = fit(config, tmp_path / "whole", progress=False)
    assert (complete.step, complete.interrupted) == (STEPS, False)
    interrupt_at(step, validation)
    interrupted = fit(config, tmp_path / "parts", progress=False)
    assert (interrupted.step, interrupted.interrupted) == (step, True)
    # What a killed process may write after its last checkpoint.
    with open(interrupted.metrics, "a") as file:
        file.write(f"{step + 1},1,1.0,1.0,1.0,1.0,1.0,,,\n{step + 2},1,")
    torch.manual_seed(99)
    second = resume(tmp_path / "parts", progress=False)
    assert (second.step, second.interrupted) == (STEPS, False)
    for name in ("last.safetensors", "best.safetensors"):
        got, expected = (learned_tree(result.run / name) for result in (second, complete))
        assert_equal_trees(got, expected)
    assert rows_without_seconds(second.metrics) == rows_without_seconds(complete.metrics)


@pytest.mark.parametrize(("step", "validation"), [(13, False), (20, False), (20, True)])
def test_sigterm_is_heard_like_ctrl_c(
    tmp_path: Path, config: LanguageModelConfig, interrupt_at: Any, step: int, validation: bool
) -> None:
    """Also where a validation is due, which is made first."""
    interrupt_at(step, validation, signal.SIGTERM)
    result = fit(config, tmp_path / "run", progress=False)
    assert (result.step, result.signal) == (step, signal.SIGTERM)
    assert load_tree(result.last)["global_step"] == step
    validated = [row["step"] for row in read_rows(result.metrics) if row["validation_loss"]]
    assert validated == ["10", "20"][: step // 10]


def test_sigterm_amid_a_validation_waits_for_its_end(
    tmp_path: Path, config: LanguageModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Training.validation_step

    def validation_step(self: Training, batch: Any, batch_idx: int) -> None:
        if (self.global_step, batch_idx) == (20, 1):
            signal.raise_signal(signal.SIGTERM)
        validate(self, batch, batch_idx)

    monkeypatch.setattr(Training, "validation_step", validation_step)
    config = dataclasses.replace(config, validation_fraction=0.3)
    result = fit(config, tmp_path / "run", progress=False)
    assert len(list(result.task.validation(Shard()))) > 2
    assert (result.step, result.signal) == (20, signal.SIGTERM)
    validated = [row["step"] for row in read_rows(result.metrics) if row["validation_loss"]]
    assert validated == ["10", "20"]


def test_a_second_ctrl_c_stops_at_once_and_keeps_the_checkpoint(
    tmp_path: Path, config: LanguageModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(self: Metrics, trainer: Any, *options: Any) -> None:
        if trainer.global_step == 13:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Metrics, "on_train_batch_end", twice)
    previous_handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "run", progress=False)
    assert load_tree(tmp_path / "run" / "last.safetensors")["global_step"] == 10
    assert signal.getsignal(signal.SIGINT) is previous_handler


def test_place_and_carried_state_are_those_of_the_last_step(
    tmp_path: Path, config: LanguageModelConfig, interrupt_at: Any
) -> None:
    assert len(LanguageModeling.read(config).training_windows) == 9
    interrupt_at(13)
    tree = load_tree(fit(config, tmp_path / "run", progress=False).last)
    assert tree["global_step"] == 13
    (process,) = tree["processes"]
    assert process["carried"].shape == (2, 4, 8)


def test_the_seed_fixes_every_bit(tmp_path: Path, config: LanguageModelConfig) -> None:
    a, b = (fit(config, tmp_path / name, progress=False).last for name in "ab")
    c = fit(dataclasses.replace(config, seed=1), tmp_path / "c", progress=False).last
    assert_equal_trees(learned_tree(a), learned_tree(b))
    key = "model.recurrent.weight_hh_l0"
    assert not torch.equal(load_tree(a)["state_dict"][key], load_tree(c)["state_dict"][key])


@pytest.mark.parametrize(
    ("input", "cell", "vocabulary"),
    [("one-hot", "GRU", "bytes"), ("embedding", "LSTM", "characters")],
)
def test_it_learns_a_text_by_heart(tmp_path: Path, input: str, cell: str, vocabulary: str) -> None:
    (tmp_path / "text").write_text("the quick brown fox, " * 100)
    config = LanguageModelConfig(
        paths=(str(tmp_path / "text"),), input=input, cell=cell, vocabulary=vocabulary,
        hidden_size=32, batch_size=8, window=16, steps=300, validate_every=100,
        learning_rate=0.02, validation_fraction=0.3, accelerator="cpu",
    )  # fmt: skip
    result = fit(config, tmp_path / "run", progress=False)
    assert result.best is not None
    assert result.validation["bits_per_character"] < 0.2
    model, vocabulary_read = load_language_model(result.best)
    assert len(vocabulary_read) == (256 if vocabulary == "bytes" else 17)
    tokens = vocabulary_read.encode(read_text(config.paths))
    measured = score_language_model(model, make_windows(config, tokens)[1])
    assert measured.loss == pytest.approx(result.validation["loss"], abs=1e-3)


def test_a_finished_run_can_be_continued(tmp_path: Path, config: LanguageModelConfig) -> None:
    config = dataclasses.replace(config, steps=14, schedule="constant")
    fit(config, tmp_path / "run", progress=False)
    longer = resume(tmp_path / "run", steps=25, progress=False)
    assert longer.step == 25
    assert [row["step"] for row in read_rows(longer.metrics)] == (
        ["4", "8", "10", "12", "14", "16", "20", "20", "24", "25"]
    )
    rebuilt = resume(tmp_path / "run", progress=False)
    assert (rebuilt.step, rebuilt.interrupted) == (25, False)


def test_gradients_are_clipped(tmp_path: Path, config: LanguageModelConfig) -> None:
    norms: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(math.hypot(*(g.norm().item() for g in gradients if g is not None)))

    handle = register_optimizer_step_pre_hook(note)
    try:
        fit(dataclasses.replace(config, clip=0.0), tmp_path / "free", progress=False)
        assert max(norms) > 0.1
        norms.clear()
        fit(dataclasses.replace(config, clip=0.01), tmp_path / "clipped", progress=False)
        assert max(norms) <= 0.01 * 1.001
    finally:
        handle.remove()


def test_a_run_writes_its_files_and_nothing_else(
    tmp_path: Path,
    config: LanguageModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    printed = io.StringIO()
    result = fit(config, tmp_path / "run", progress=printed)
    assert list(Path().iterdir()) == []
    assert sorted(file.name for file in result.run.iterdir()) == [
        "best.safetensors", "config.json", "curve.png", "last.safetensors", "metrics.csv",
    ]  # fmt: skip
    assert capfd.readouterr() == ("", "")
    lines = printed.getvalue().splitlines()
    assert [line.split("  validation ")[0].split() for line in lines] == [
        ["step", str(step)] for step in (10, 20, 30)
    ]
    bits, perplexity = (result.validation[x] for x in ("bits_per_character", "perplexity"))
    assert lines[-1].endswith(f"{bits:.4g} bits/char  perplexity {perplexity:.4g}")


def test_metrics_are_means_in_consistent_units(tmp_path: Path, config: LanguageModelConfig) -> None:
    result = fit(config, tmp_path / "run", progress=False)
    with open(result.metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == columns(result.task)
    for row in rows:
        part = "training" if row["training_loss"] else "validation"
        measured = LanguageModelScore(float(row[f"{part}_loss"]))
        bits, perplexity = (row[f"{part}_{x}"] for x in ("bits_per_character", "perplexity"))
        assert float(bits) == pytest.approx(measured.bits_per_character, abs=2e-6)
        assert float(perplexity) == pytest.approx(measured.perplexity, rel=2e-6)
        assert int(row["tokens"]) == int(row["step"]) * 4 * 32
    assert rows[0]["step"] == "4"
    # Before anything is learned, a loss is near that of the uniform distribution.
    assert float(rows[0]["training_bits_per_character"]) == pytest.approx(8.0, abs=0.3)


def refused(tmp_path: Path, run: str) -> Result:
    return resume(tmp_path / run, progress=False)


def test_what_cannot_be_resumed_raises(tmp_path: Path, config: LanguageModelConfig) -> None:
    with pytest.raises(FileError, match=r"config\.json: No such file"):
        refused(tmp_path, "absent")
    run = fit(dataclasses.replace(config, steps=2), tmp_path / "run", progress=False).run
    shutil.copytree(run, tmp_path / "cut")
    data = (run / "last.safetensors").read_bytes()
    (tmp_path / "cut" / "last.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match=r"last\.safetensors: not a whole safetensors file"):
        refused(tmp_path, "cut")
    shutil.copytree(run, tmp_path / "foreign")
    (tmp_path / "foreign" / "config.json").write_text('{"hidden": 3}')
    with pytest.raises(FileError, match=r"config\.json: not a valid configuration"):
        refused(tmp_path, "foreign")
    (tmp_path / "text").write_bytes(read_text(limit=1300).swapcase())
    with pytest.raises(DataError, match="the run was started with, but they have changed"):
        refused(tmp_path, "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"clip": -1.0}, "clip must be at least 0, got -1.0"),
        ({"schedule": "cos"}, "schedule must be one of cosine, constant, got 'cos'"),
        ({"seed": 2**32}, "seed must be at least 0 and below 4294967296"),
        ({"validation_fraction": 1.0}, "validation_fraction must be above 0 and below 1, got 1.0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0 and finite, got nan"),
    ],
)
def test_a_configuration_names_a_wrong_value(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageModelConfig(**arguments)


def test_the_learning_rate_rises_and_falls() -> None:
    config = LanguageModelConfig(steps=1050)
    factors = [learning_rate_factor(step, config) for step in range(1050)]
    assert factors[0] == 1 / 50
    assert factors[49] == factors[50] == 1.0
    assert factors[550] == pytest.approx((1.0 + 0.05) / 2)
    assert factors[-1] == pytest.approx(0.05, abs=1e-5)
    constant = LanguageModelConfig(steps=1050, schedule="constant")
    assert {learning_rate_factor(step, constant) for step in range(49, 1050)} == {1.0}
    assert learning_rate_factor(0, LanguageModelConfig(steps=1)) == 1.0


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    row = dict.fromkeys(columns(LanguageModeling), "")
    rows = [
        row | {"step": "10", "training_bits_per_character": "5.0"},
        row | {"step": "20", "training_bits_per_character": "4.0"},
        row | {"step": "20", "validation_bits_per_character": "4.5"},
        row | {"step": "30", "validation_bits_per_character": "inf"},
    ]
    for name, printed in {"empty": [], "all": rows}.items():
        loss_curve(printed, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (tmp_path / "all").read_bytes() != (tmp_path / "empty").read_bytes()


def test_bars_and_clocks() -> None:
    assert bar(0.5, 4) == "━━──"
    assert bar(1.0, 3, "ascii") == "###"
    assert bar(0.5, -2) == ""
    assert [clock(s) for s in (0.4, 67, 3723)] == ["0:00", "1:07", "1:02:03"]


def test_the_state_is_carried_over_windows_and_reset_at_the_start(
    config: LanguageModelConfig,
) -> None:
    """Two steps of training against the same two windows by hand."""
    task = LanguageModeling.read(config)
    module = Training(task, new_model(task)).eval()
    module._trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    head, second = task.training_windows[0], task.training_windows[1]
    with torch.no_grad():
        actual = [module.training_step(window, 0).item() for window in (head, second, head)]
        logits, state = module.model(head.inputs)
        expected = [next_token_loss(logits, head.targets).item()]
        expected.append(
            next_token_loss(module.model(second.inputs, state)[0], second.targets).item()
        )
        single = next_token_loss(module.model(second.inputs)[0], second.targets).item()
    assert actual == pytest.approx([*expected, expected[0]], rel=1e-6)
    assert actual[0] == actual[2]
    assert actual[1] != single


def test_the_defaults_are_those_that_were_promised() -> None:
    config = LanguageModelConfig()
    assert (config.hidden_size, config.cell, config.input) == (256, "GRU", "embedding")
