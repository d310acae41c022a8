"""Problems as a task: what is measured is what was asked; simple methods; what is refused."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.cli._app import run
from unrolled.config import ProblemConfig
from unrolled.models import load_tree
from unrolled.tasks import DataError, Shard, find_task, measure
from unrolled.tasks._synthetic import SyntheticCodec, SyntheticProblems
from unrolled.tasks.datasets._synthetic import MEAN_ERROR, memoryless_loss
from unrolled.train import fit
from unrolled.train._run import new_model


def task_of(data: str, **options: Any) -> SyntheticProblems:
    small = {"length": 9, "validation_sequences": 40, "batch_size": 16}
    return SyntheticProblems(ProblemConfig(data=data, **{**small, **options}))


class Oracle(torch.nn.Module):
    """Returns the targets of each batch, or other answers in the first ``wrong`` sequences."""

    def __init__(self, task: SyntheticProblems, wrong: int = 0) -> None:
        super().__init__()
        self.batches, self.wrong = list(task.validation(Shard())), wrong

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        batch = self.batches.pop(0)
        assert torch.equal(batch.inputs, inputs)
        expected = batch.targets.clone()
        expected[..., : self.wrong] = 1 - expected[..., : self.wrong]
        if expected.is_floating_point():
            return expected[:, None], None
        return 50.0 * torch.nn.functional.one_hot(expected.clamp(0), 10).float(), None


@pytest.mark.parametrize("data", ["adding", "copy", "parity", "dyck"])
def test_right_answers_have_full_scores(data: str) -> None:
    task = task_of(data)
    assert measure(task, Oracle(task)) == pytest.approx(
        {"loss": 0.0, "accuracy": 1.0, "solved": 1.0}, abs=1e-6
    )


@pytest.mark.parametrize("data", ["parity", "dyck"])
def test_sequences_with_wrong_answers_are_not_solved(data: str) -> None:
    """40 sequences in batches of 16, 16 and 8: two of each are answered the wrong way round."""
    task = task_of(data)
    actual = measure(task, Oracle(task, wrong=2))
    assert actual["solved"] == actual["accuracy"] == pytest.approx(34 / 40)
    assert actual["loss"] == pytest.approx(50.0 * 6 / 40)


def test_copy_counts_recalled_tokens_alone() -> None:
    """Who says blank always is right at most steps, and recalls nothing."""
    task = task_of("copy", length=50)

    class Blank(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, None]:
            logits = torch.zeros(*inputs.shape, 9)
            logits[..., 0] = 9.0
            return logits, None

    actual = measure(task, Blank())
    assert (actual["accuracy"], actual["solved"]) == (0.0, 0.0)


def test_without_memory_the_loss_is_the_published_one() -> None:
    """Blank where blank is due, else all eight tokens alike."""
    task = task_of("copy", length=1000, validation_sequences=4)

    class Clock(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, None]:
            logits = torch.full((*inputs.shape, 9), -60.0)
            logits[:-10, :, 0] = 0.0
            logits[-10:, :, 1:] = 0.0
            return logits, None

    actual = measure(task, Clock())["loss"]
    expected = task.baselines()["without memory"]["loss"]
    assert actual == pytest.approx(expected, rel=1e-6)
    assert expected == memoryless_loss(1000) == pytest.approx(0.0204, abs=5e-5)


def test_simple_methods() -> None:
    always = task_of("adding", validation_sequences=4000).baselines()["always 1"]
    assert always["loss"] == pytest.approx(MEAN_ERROR, abs=0.01)
    # The density of the sum of two numbers of U(0, 1) is 1 at 1, so 2 x 0.04 of them are near.
    assert always["accuracy"] == pytest.approx(0.08 - 0.04**2, abs=0.02)
    odd = torch.cat([b.targets.flatten() for b in task_of("dyck").validation(Shard())])
    share = odd.double().mean().item()
    assert task_of("dyck").baselines() == {"majority": {"accuracy": pytest.approx(1 - share)}}
    assert 0 < share < 0.5


def test_training_and_validation_are_other_sequences_and_seeds_too() -> None:
    task, task_of_seed_1 = task_of("adding"), task_of("adding", seed=1)
    drawn = [task.batch(step, Shard()).inputs for step in range(3)]
    drawn += [batch.inputs for batch in task.validation(Shard())][:2]
    drawn += [task_of_seed_1.batch(0, Shard()).inputs]
    for k, inputs in enumerate(drawn):
        assert not any(torch.equal(inputs, earlier) for earlier in drawn[:k])
    assert task.digest != task_of_seed_1.digest


def test_a_model_of_another_problem_is_refused() -> None:
    with pytest.raises(DataError, match="data: must be parity, on which the model was trained"):
        SyntheticProblems.read(ProblemConfig(data="copy"), SyntheticCodec("parity"))
    with pytest.raises(ValueError, match="name must be one of adding, copy, parity, dyck, got 'x'"):
        SyntheticProblems.codec_from_state({"name": "x"})


@pytest.mark.slow
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """It learns parity of short strings, and says of what it is better."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    options = ["--data", "parity", "--length", "6", "--hidden-size", "16", "--steps", "300"]
    options += ["--learning-rate", "0.02", "--validate-every", "300", "--accelerator", "cpu"]
    assert run(["train", "problem", *options, "--run", "mine"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^majority +accuracy 0\.5", out, re.MULTILINE)
    assert run(["evaluate", "mine", "--json"]) == 0
    actual = json.loads(capsys.readouterr().out)
    assert actual["model"]["solved"] > 0.95
    assert not math.isnan(actual["model"]["loss"])
    faults = [
        (
            ["evaluate", "mine", "data.csv"],
            "DATA must be omitted, because the task problem generates its data",
        ),
        (
            ["predict", "mine"],
            "must not be of the task problem; measure it with: unrolled evaluate",
        ),
        (["inspect", "mine", "--text", "012"], "text: must be two or more of the symbols 01"),
        (["train", "problem", "--bidirectional"], "each answer depends on earlier steps only"),
        (
            ["train", "problem", "--cell", "RNN", "--chrono-steps", "9"],
            "--chrono-steps must be None for a cell without forget or input gates, got 9 with RNN",
        ),
        (["train", "problem", "--length", "1"], "--length must be at least 2, got 1"),
        (["train", "problem", "data.csv"], "unexpected extra argument"),
    ]
    for arguments, message in faults:
        assert run(arguments) == 2
        assert message in capsys.readouterr().err
    assert find_task("problem") is SyntheticProblems


def test_chrono_steps_initialize_the_gates_of_every_layer() -> None:
    options: dict[str, Any] = {"num_layers": 2, "hidden_size": 5}
    model = new_model(task_of("adding", chrono_steps=9, **options))
    for layer in range(2):
        gate = slice(5, 10)  # z of r, z, n
        biases = model.get_parameter(f"recurrent.bias_ih_l{layer}").detach()[gate]
        assert biases.min() >= 0
        assert biases.max() <= math.log(8)
        assert not bool(model.get_parameter(f"recurrent.bias_hh_l{layer}")[gate].any())
    plain = new_model(task_of("adding", **options))
    assert bool(plain.get_parameter("recurrent.bias_hh_l0")[5:10].any())


def test_recurrent_matrices_have_their_own_learning_rate(tmp_path: Path) -> None:
    """Adam's first step moves each number by the learning rate."""
    rates = {"learning_rate": 0.01, "recurrent_lr_scale": 0.25, "schedule": "constant"}
    options: dict[str, Any] = {"steps": 1, "weight_decay": 0.0, "hidden_size": 5, **rates}
    config = ProblemConfig(data="parity", length=7, accelerator="cpu", **options)
    previous = new_model(SyntheticProblems(config)).state_dict()
    result = fit(config, tmp_path / "run", progress=False)
    weights = load_tree(result.last)["state_dict"]
    for name, weight in previous.items():
        moved = (weights[f"model.{name}"] - weight).abs()
        expected = 0.0025 if "weight_hh" in name else 0.01
        assert moved.max().item() == pytest.approx(expected, rel=1e-3), name
