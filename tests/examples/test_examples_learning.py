"""Examples that learn or measure: their values, and that the scripts print them.

Learning is asked for much less than it reaches: a test fails where nothing is learned, not where
rounding differs. What a script prints is checked on the results of the same run.
"""

import dataclasses
import math
import re
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.support.scripts import example
from tests.support.tolerances import close
from unrolled.tasks import datasets, find_task, load_trained
from unrolled.tasks._classification import class_probabilities, prefix_probabilities
from unrolled.tasks.datasets._speech import WordSpan


def printed_by(module: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    module.main(*arguments)
    return capsys.readouterr().out


def test_hello_prints_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    hello = example("hello")
    printed = printed_by(hello, capsys, []).strip().splitlines()
    parts = {}
    for line in filter(None, printed):
        if line in hello.PROGRAMS:
            lines = parts.setdefault(line, [])
        else:
            lines.append(line)
    assert list(parts) == list(hello.PROGRAMS)
    for (name, lines), word, digits in zip(
        parts.items(), ("ohlol", "ohlol", "ohlol", "ohllo"), (4, 3, 3, 3), strict=True
    ):
        assert len(lines) == 15, name
        for epoch, line in enumerate(lines, start=1):
            pattern = (
                rf"Predicted string: [ehlo]{{5}}, Epoch \[{epoch}/15\] loss \d+\.\d{{{digits}}}"
            )
            assert re.fullmatch(pattern, line), line
        assert lines[-1].startswith(f"Predicted string: {word}, Epoch [15/15] loss ")


@pytest.mark.parametrize("program", ["cell", "layer", "embedding"])
def test_hello_is_the_program_of_torch(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = example("hello")
    ours = [getattr(hello, program)(seed) for seed in range(3)]
    monkeypatch.setattr(hello, "RNN", torch.nn.RNN)
    monkeypatch.setattr(hello, "RNNCell", torch.nn.RNNCell)
    theirs = [getattr(hello, program)(seed) for seed in range(3)]
    assert len({loss for history in ours for _, loss in history}) == 3 * 15, (
        "seeds and epochs differ"
    )
    for mine, reference in zip(ours, theirs, strict=True):
        assert [word for word, _ in mine] == [word for word, _ in reference]
        # Adam divides by the gradient's size and so passes its rounding on in full.
        assert [loss for _, loss in mine] == pytest.approx(
            [loss for _, loss in reference], rel=1e-3
        )


@pytest.mark.long
@pytest.mark.slow
def test_hello_counts_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    hello = example("hello")
    printed = printed_by(hello, capsys, ["--seeds", "20"])
    counts = [int(n) for n in re.findall(r": (\d+) of 20 seeds learn", printed)]
    by_hand = sum(hello.layer(seed)[-1][0] == "ohlol" for seed in range(20))
    assert len(counts) == 4
    assert counts[1] == by_hand
    assert 0 < counts[1] < 20, "not every start learns the layer's"
    assert counts[2:] == [20, 20], "every start learns the embedding's"


def test_gradient_by_lag_is_the_product_of_jacobians() -> None:
    module = example("gradient_flow")
    T = 12
    for radius in (0.5, 3.0):
        net = module.simple(radius)
        x = torch.randn(T, module.INPUTS, dtype=torch.float64)
        direction = torch.randn(module.H, dtype=torch.float64)
        w = {name: p.detach().numpy() for name, p in net.named_parameters()}
        W, b = w["weight_hh_l0"], w["bias_ih_l0"] + w["bias_hh_l0"]
        assert max(abs(np.linalg.eigvals(W))) == pytest.approx(radius)
        h = [np.zeros(module.H)]
        for x_t in x.numpy():
            h.append(np.tanh(w["weight_ih_l0"] @ x_t + W @ h[-1] + b))
        gradient, expected = direction.numpy(), []
        for h_t in reversed(h[1:]):
            gradient = gradient * (1 - h_t**2)
            expected.append(np.linalg.norm(gradient @ w["weight_ih_l0"]))
            gradient = gradient @ W
        close(
            module.by_lag(net, x, direction) / max(expected),
            torch.tensor(expected) / max(expected),
            "gradient",
        )


@pytest.mark.parametrize("seed", range(3))
def test_gradients_vanish_explode_and_stay(seed: int) -> None:
    module = example("gradient_flow")
    torch.manual_seed(seed)
    x = torch.randn(101, module.INPUTS, dtype=torch.float64)
    direction = torch.randn(module.H, dtype=torch.float64)
    norms = {
        name: module.by_lag(net, x, direction)
        for name, net in {
            "below 1": module.simple(0.5),
            "above 1": module.simple(3.0),
            "gate half open": module.gated(0.0),
            "gate open": module.gated(5.0),
        }.items()
    }
    ratio = {name: (norm[100] / norm[0]).item() for name, norm in norms.items()}
    assert ratio["below 1"] < 1e-25
    assert ratio["above 1"] > 1e6
    assert ratio["gate half open"] < 1e-15
    assert 0.01 < ratio["gate open"] < 100


@pytest.mark.long
@pytest.mark.slow
def test_clipping_cures_divergence() -> None:
    module = example("gradient_flow")
    for seed in range(module.SEEDS):
        losses, norms = module.echo(max_norm=1.0, seed=seed)
        assert max(norms) <= 1 + 1e-6
        assert losses[0] > 0.5
        assert max(losses[-20:]) < 0.1
    ends, largest = [], []
    for seed in range(module.SEEDS):
        losses, norms = module.echo(max_norm=float("inf"), seed=seed)
        ends.append(losses[-1])
        largest.append(max(norms))
    assert sum(map(math.isnan, ends)) >= 7, f"chaotic, so a few may be lucky: {ends}"
    assert sum(norm > 10 for norm in largest) >= 7, f"the same: {largest}"


@pytest.mark.slow
def test_long_dependency(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("long_dependency")
    errors = module.compare()
    assert errors["LSTM"] < 0.2
    assert errors["RNN"] > 0.9
    monkeypatch.setattr(module, "compare", lambda: errors)
    printed = printed_by(module, capsys)
    assert f"LSTM error {errors['LSTM']:.3f}" in printed
    assert f"RNN  error {errors['RNN']:.3f}" in printed


def test_adding_problem() -> None:
    x, targets = example("long_dependency").batch(50)
    numbers, marks = x.unbind(-1)
    assert ((marks == 0) | (marks == 1)).all()
    for half in marks.split(50):
        assert (half.sum(0) == 1).all()
    for n in range(50):
        assert targets[n].item() == pytest.approx(numbers[:, n][marks[:, n] == 1].sum().item())


@pytest.mark.slow
def test_digits_to_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("digits_to_words")
    results = module.captions(epochs=15)
    correct = sum(written == word for written, word in results)
    assert len(results) == 450
    assert {word for _, word in results} == set(module.WORDS)
    assert correct / 450 > 0.9
    monkeypatch.setattr(module, "captions", lambda: results)
    assert f"{correct} of 450 words are correct" in printed_by(module, capsys)


def test_runge_kutta_on_an_oscillator() -> None:
    module = example("dynamical_systems")
    s, dt = np.array([[1.0], [0.0]]), module.STEP / module.SUBSTEPS
    for _ in range(500):
        s = module.runge_kutta(lambda s, u: np.stack([s[1], u - s[0]]), s, np.array([0.25]), dt)
    exact = [0.25 + 0.75 * math.cos(500 * dt), -0.75 * math.sin(500 * dt)]
    assert s[:, 0] == pytest.approx(exact, abs=1e-7)


def test_simulated_trajectories_obey_their_equations() -> None:
    module = example("dynamical_systems")
    y, u = module.simulate(module.SYSTEMS["pendulum"], 60, 5, np.random.default_rng(0))
    y, u = y.squeeze(-1).double().numpy(), u.squeeze(-1).double().numpy()
    assert len(np.unique(u[:, 0])) == 6, "the torque jumps every ten steps"
    acceleration = (y[2:] - 2 * y[1:-1] + y[:-2]) / module.STEP**2
    velocity = (y[2:] - y[:-2]) / (2 * module.STEP)
    expected = -np.sin(y[1:-1]) - 0.2 * velocity + u[1:-1]
    constant_torque = u[1:-1] == u[:-2]  # at a jump the second difference sees both torques
    assert np.abs(acceleration - expected)[constant_torque].max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("van der Pol", marks=pytest.mark.long), "pendulum"])
def test_dynamical_system_runs_free(name: str) -> None:
    module = example("dynamical_systems")
    result = module.learn(name)
    assert result.free_run.shape == result.truth.shape == (150, 100, 1)
    errors = result.errors()
    truth = result.truth.numpy()
    assert errors["network"] == pytest.approx(
        np.sqrt(np.mean((result.free_run.numpy() - truth) ** 2))
    )
    assert errors["mean"] == pytest.approx(truth.std(), rel=1e-3)
    assert errors["persistence"] > errors["mean"] > 0.3
    assert errors["network"] < 0.2 * errors["mean"]
    late = (result.free_run - result.truth)[-30:].square().mean().sqrt()
    assert late < 0.25 * errors["mean"], "it holds to the end of the run"


def test_free_run_feeds_its_own_output_back() -> None:
    module = example("dynamical_systems")
    model = module.Model()
    y, u = torch.randn(5, 3, 1), torch.randn(12, 3, 1)
    predictions = model.run_free(y, u)
    assert predictions.shape == (7, 3, 1)
    fed_back = torch.cat([y, predictions[:-1]])
    expected, _ = model(fed_back, u[:-1])
    torch.testing.assert_close(predictions, expected[4:].detach(), rtol=1e-5, atol=1e-6)


def test_dynamical_systems_prints_and_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("dynamical_systems")
    picture = tmp_path / "runs.png"
    printed = printed_by(module, capsys, ["--updates", "2", "--plot", str(picture)])
    assert (
        len(re.findall(r"network \d\.\d{3}, persistence \d\.\d{3}, mean \d\.\d{3}", printed)) == 2
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_video(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("video")
    results = module.compare(epochs=8)
    assert results[8] > 0.9
    assert results[1] < 0.25, "one frame has no information"
    monkeypatch.setattr(module, "compare", lambda epochs: results)
    assert f"8 frames: {results[8]:.1%} of 400" in printed_by(module, capsys)


def test_online(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("online")
    task = module.Classification.read(module.CONFIG)
    model = module.learn(task, 120)
    task.validation_items = task.validation_items[::10]
    results = module.accuracy_by_length(model, task)
    assert results[100] > results[1] + 0.1
    assert results[100] > 0.3
    texts = [task.data.inputs[n] for n in task.validation_items]
    guesses = class_probabilities(model, task.codec, texts).argmax(-1)
    accuracy = (guesses == task.targets[task.validation_items]).double().mean().item()
    assert results[100] == pytest.approx(accuracy, abs=0.01), "the last one uses the complete text"
    text = task.data.inputs[task.validation_items[0]]
    probabilities, _ = module.predict_online(
        module.stream_of(model), task.codec.encode(text).tolist()
    )
    expected = prefix_probabilities(model, task.codec, text)
    close(torch.from_numpy(probabilities), expected.float(), "output")
    monkeypatch.setattr(module, "learn", lambda task, steps: model)
    monkeypatch.setattr(module, "accuracy_by_length", lambda model, task: results)
    assert f"after 100 characters {results[100]:.1%} are correct" in printed_by(module, capsys)


@pytest.mark.slow
def test_spoken_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = example("spoken_words")
    monkeypatch.setattr(datasets, "spoken_words", partial(datasets.spoken_words, 800, 60))
    config = dataclasses.replace(
        module.CONFIG, steps=400, hidden_size=64, batch_size=16, validate_every=400,
        accelerator="cpu",
    )  # fmt: skip
    path = module.learn(config, tmp_path)
    exported = module.load(path)
    labels = module.labels_of(exported)
    spoken = module.phrases(12, snr=20.0)
    predictions = [module.predict_online(exported, phrase.samples) for phrase in spoken]
    early, late = (
        module.accuracy(labels, spoken, predictions, moment)
        for moment in ("start + 0.1", "end + 0.0")
    )
    assert late > 0.3, "of 21 labels"
    assert late > early + 0.1

    model, codec = load_trained(tmp_path / "run" / "last.safetensors", find_task("classify"))
    assert labels == codec.labels.decode(list(range(21)))
    frames = torch.from_numpy(module.FRAMES(spoken[0].samples))
    expected = prefix_probabilities(model, codec, frames)
    close(torch.from_numpy(predictions[0].probabilities), expected.float(), "output")
    assert len(predictions[0].seconds) == -(-len(spoken[0].samples) // module.FRAMES.hop)

    monkeypatch.setattr(module, "learn", lambda config, folder: path)
    printed = printed_by(module, capsys, config, 2)
    assert "10 words of held-out voices" in printed
    phrase = module.phrases(2, snr=20.0)[1]
    prediction = module.predict_online(exported, phrase.samples)
    assert "\n".join(module.transcript(labels, phrase, prediction)) in printed


def test_the_label_is_that_of_the_last_complete_frame() -> None:
    module = example("spoken_words")
    rate, window, hop = module.FRAMES.rate, module.FRAMES.window, module.FRAMES.hop
    probabilities = np.eye(40, dtype=np.float32)  # frame t predicts label t
    predictions = module.Predictions(probabilities, np.zeros(42))
    for t in (0, 1, 7, 39):
        complete = window + t * hop
        assert module.label_at(predictions, complete / rate) == t
        assert module.label_at(predictions, (complete - 1) / rate) == max(0, t - 1)
    span = WordSpan("word", window + 7 * hop, window + 30 * hop)
    phrase = module.Utterance(np.zeros(9), "word", "en+m1", (span,))
    labels = ["no"] * 40
    for moment, t in (("start + 0.05", 12), ("end + 0.0", 30)):
        with_word = [*labels[:t], "word", *labels[t + 1 :]]
        assert module.accuracy(with_word, [phrase], [predictions], moment) == 1.0
        assert module.accuracy(labels, [phrase], [predictions], moment) == 0.0


def test_a_transcript_has_stable_labels_only() -> None:
    module = example("spoken_words")
    frames = module.STEADY
    frame_labels = [0] * frames + [1] * (frames - 1) + [0] * 3 + [2] * frames + [0] * frames
    probabilities = np.eye(3, dtype=np.float32)[frame_labels]
    predictions = module.Predictions(probabilities, np.zeros(len(frame_labels)))
    phrase = module.Utterance(np.zeros(9), "b", "en+m1", (WordSpan("b", 22050, 30000),))
    lines = module.transcript(["-", "a", "b"], phrase, predictions)
    assert lines[0] == "en+m1 says b at 1.00 s"
    assert [line.split()[2] for line in lines[1:]] == ["-", "b", "-"]
