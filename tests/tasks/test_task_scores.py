"""What tasks measure, against scikit-learn and numbers by hand; and what they say of bad data."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    root_mean_squared_error,
)
from torch import Tensor, nn

from tests.support.small_tasks import NAMES, config_of
from tests.support.tolerances import assert_equal
from unrolled.config import (
    ClassificationConfig,
    ForecastConfig,
    TaggingConfig,
    TranslationConfig,
)
from unrolled.tasks import Shard, find_task, measure
from unrolled.tasks import _translation as translation
from unrolled.tasks._classification import (
    Classification,
    LabelledSequences,
    class_probabilities,
    prefix_probabilities,
)
from unrolled.tasks._forecasting import Forecasting, forecast
from unrolled.tasks._language_modeling import LanguageModeling
from unrolled.tasks._tagging import Tagging
from unrolled.tasks._translation import Pair, Translation
from unrolled.tasks.data._conll import Sentence
from unrolled.tasks.data._tables import read_table

FULL_SHARD = Shard()


# Measures


@pytest.mark.parametrize("example", ["classify", "numbers"])
def test_classes_are_measured_as_scikit_learn_does(example: str, tmp_path: Path) -> None:
    task = Classification.read(config_of(example, tmp_path))
    model = task.build_model(task.model_arguments()).eval()
    labels = [task.data.labels[n] for n in task.validation_items]
    chances = class_probabilities(
        model, task.codec, [task.data.inputs[n] for n in task.validation_items]
    )
    guesses = task.codec.labels.decode(chances.argmax(-1))
    names = task.codec.labels.decode(range(len(task.codec.labels)))
    expected = {
        "loss": log_loss(labels, chances.numpy(), labels=names),
        "accuracy": accuracy_score(labels, guesses),
        "macro_f1": f1_score(labels, guesses, average="macro"),
    }
    assert measure(task, model) == pytest.approx(expected, rel=1e-5)
    split = zip(task.data.labels, task.data.held_out, strict=True)
    training_labels = [label for label, out in split if not out]
    common = [max(sorted(set(training_labels)), key=training_labels.count)] * len(labels)
    assert task.baselines()["majority"] == pytest.approx(
        {
            "accuracy": accuracy_score(labels, common),
            "macro_f1": f1_score(labels, common, average="macro"),
        }
    )


class Table(nn.Module):
    """A tagger that looks each word up and is sure."""

    def __init__(self, task: Tagging, labels: dict[str, str]) -> None:
        super().__init__()
        codec = task.codec
        numbers = torch.zeros(len(codec.words), dtype=torch.int64)
        for word, label in labels.items():
            numbers[codec.words.encode([word])] = codec.labels.encode([label])
        self.logits = nn.functional.one_hot(numbers, len(codec.labels)) * math.log(3)

    def forward(self, words: Tensor, *_: Any) -> Tensor:
        return self.logits[words]


def test_tags_are_measured_by_hand() -> None:
    """Of 6 tokens 4 are right; of 3 true and 2 predicted entities 1 is right."""
    training = [Sentence(("a", "b", "c", "d"), ("B-P", "I-P", "O", "O")),
                Sentence(("a", "c"), ("B-Q", "O"))]  # fmt: skip
    held_out = [
        Sentence(("a", "b", "c"), ("B-P", "I-P", "O")),
        Sentence(("a", "c", "a"), ("B-Q", "O", "B-Q")),
    ]
    task = Tagging(TaggingConfig(min_count=1), training, held_out)
    assert task.codec.labels.entries == ("B-P", "B-Q", "I-P", "O")
    actual = measure(task, Table(task, {"a": "B-P", "b": "I-P", "c": "O"}))
    sure, wrong = math.log(1 + 3 / 3), math.log(3 + 3)  # of logits ln 3 and 0, 0, 0
    assert actual == pytest.approx(
        {
            "loss": (4 * sure + 2 * wrong) / 6,
            "accuracy": 4 / 6,
            "entity_precision": 1 / 3,
            "entity_recall": 1 / 3,
            "entity_f1": 1 / 3,
        },
        rel=1e-6,
    )
    # The label that a had most often is B-P (B-Q comes as often, and later in the alphabet).
    assert task.baselines()["unigram"] == pytest.approx({"accuracy": 4 / 6, "entity_f1": 1 / 3})
    assert task.baselines()["majority"] == pytest.approx({"accuracy": 2 / 6, "entity_f1": 0.0})
    plain = [Sentence(("a",), ("noun",)), Sentence(("b",), ("verb",))]
    assert "entity" not in Tagging(TaggingConfig(min_count=1), plain, plain).format_scores(actual)


def test_a_label_of_the_held_out_part_alone_is_known() -> None:
    task = Tagging(TaggingConfig(min_count=1), [Sentence(("a",), ("X",))],
                   [Sentence(("a",), ("Y",))])  # fmt: skip
    actual = measure(task, Table(task, {"a": "X"}))
    assert actual["accuracy"] == 0.0


def test_forecasts_are_measured_in_the_datas_units(tmp_path: Path) -> None:
    """Against scikit-learn, on windows cut from the file by hand."""
    config = config_of("forecast", tmp_path, season=6)
    task = Forecasting.read(config)
    model = task.build_model(task.model_arguments()).eval()
    table = read_table(config.paths[0])
    values = torch.stack([table.numbers("warm"), table.numbers("wet")], 1)
    T, K, held_out_start = 6, 3, 80 - 20
    origins = range(held_out_start, 80 - K + 1)
    expected = torch.stack([values[t : t + K] for t in origins]).flatten().numpy()

    def of(forecasts: list[Tensor]) -> dict[str, float]:
        flat = torch.stack(forecasts).flatten().numpy()
        return {
            "mae": mean_absolute_error(expected, flat),
            "rmse": root_mean_squared_error(expected, flat),
        }

    actual = measure(task, model)
    forecasts = [forecast(model, task.codec, values[:t]) for t in origins]
    assert {name: actual[name] for name in ("mae", "rmse")} == pytest.approx(
        of(forecasts), rel=1e-5
    )
    deviation = values[:held_out_start].std(0, correction=0)
    errors = (torch.stack(forecasts).flatten() - torch.from_numpy(expected)).unflatten(0, (-1, 2))
    loss = (errors / deviation).square().mean().item()
    assert actual["loss"] == pytest.approx(loss, rel=1e-5)
    naive = {
        "persistence": of([values[t - 1].expand(K, 2) for t in origins]),
        "season before": of([values[t - 6 : t - 6 + K] for t in origins]),
    }
    for name, scores in naive.items():
        measured = task.baselines()[name]
        assert {part: measured[part] for part in scores} == pytest.approx(scores, rel=1e-5)
    assert task.codec.window == T


@pytest.mark.parametrize("unit", [1e-200, 1e-8, 1e200])
def test_errors_follow_the_unit_of_the_data(unit: float, tmp_path: Path) -> None:
    """Also where their squares are below or above all numbers."""
    scores = {}
    for name, factor in (("one", 1.0), ("other", unit)):
        rows = [f"{factor * (50 + 10 * math.sin(t / 3))!r},{factor * (t % 7)!r}" for t in range(60)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *rows]))
        config = ForecastConfig(paths=(str(tmp_path / f"{name}.csv"),), window=6, horizon=3)
        scores[name] = Forecasting.read(config).baselines()["persistence"]
    assert scores["other"]["loss"] == pytest.approx(scores["one"]["loss"], rel=1e-5)
    for name in ("mae", "rmse"):
        assert scores["other"][name] == pytest.approx(scores["one"][name] * unit, rel=1e-5, abs=0.0)


def test_a_translation_is_exact_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [Pair("a", "12"), Pair("b", "345"), Pair("c", "6"), Pair("d", "78")]
    task = Translation(TranslationConfig(hidden_size=4), pairs, pairs)
    answers = {"a": "12", "b": "35", "c": "", "d": "788"}
    monkeypatch.setattr(
        translation, "translate", lambda model, codec, texts, **_: [answers[text] for text in texts]
    )
    actual = measure(task, task.build_model(task.model_arguments()).eval())
    assert (actual["exact"], actual["error_rate"]) == pytest.approx((1 / 4, 3 / 8))


def test_a_language_model_that_knows_nothing_has_the_loss_of_a_guess(tmp_path: Path) -> None:
    task = LanguageModeling.read(config_of("lm", tmp_path, vocabulary="characters"))
    model = task.build_model(task.model_arguments())
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    size = len(set("abcde fgh \n"))
    expected = {"loss": math.log(size), "bits_per_character": math.log2(size), "perplexity": size}
    assert measure(task, model) == pytest.approx(expected, rel=1e-5)


# What is seen


def test_training_never_sees_what_is_held_out(tmp_path: Path) -> None:
    """Other values in the held-out end change neither scales nor batches; one earlier does."""
    config = config_of("forecast", tmp_path, horizon=25)  # the horizon is longer than the part
    path = Path(config.paths[0])
    lines = path.read_text().splitlines()
    task = Forecasting.read(config)

    def changed(start: int) -> Forecasting:
        path.write_text("\n".join([*lines[: 1 + start], *(f"{t},7,9" for t in range(start, 80))]))
        return Forecasting.read(config)

    same_past, other_past = changed(55), changed(54)
    assert_equal(same_past.codec.mean, task.codec.mean)
    assert_equal(same_past.codec.deviation, task.codec.deviation)
    for step in range(20):
        parts, changed_parts = (t.batch(step, FULL_SHARD)[:2] for t in (task, same_past))
        for actual, expected in zip(changed_parts, parts, strict=True):
            assert_equal(actual, expected)
    assert not torch.equal(other_past.codec.mean, task.codec.mean)
    assert same_past.digest != task.digest


def test_a_window_ends_where_its_forecast_begins(tmp_path: Path) -> None:
    """On a series that counts its days; every origin of the held-out end comes once."""
    rows = "\n".join(f"{day},{name}" for name in "ab" for day in range(40))
    (tmp_path / "days.csv").write_text(f"day,name\n{rows}\n")
    config = ForecastConfig(
        paths=(str(tmp_path / "days.csv"),), target=("day",), series="name", time="day",
        window=5, horizon=2, validation_fraction=0.2, batch_size=4,
    )  # fmt: skip
    task = Forecasting.read(config)
    (batch,) = task.validation(FULL_SHARD)
    days = task.codec.decode(batch.windows)[..., 0].round().int().T
    expected = task.codec.decode(batch.targets)[..., 0].round().int().T
    origins = [32, 33, 34, 35, 36, 37, 38] * 2
    assert expected.tolist() == [[t, t + 1] for t in origins]
    assert days.tolist() == [list(range(t - 5, t)) for t in origins]
    for step in range(40):
        latest = task.codec.decode(task.batch(step, FULL_SHARD).targets).max().item()
        assert latest < 31.5


@pytest.mark.parametrize("example", ["classify", "tag", "forecast", "seq2seq", "lm"])
def test_all_data_are_measured_through_a_codec(example: str, tmp_path: Path) -> None:
    task = find_task(NAMES[example]).read(config_of(example, tmp_path))
    full = find_task(NAMES[example]).read(task.config, task.codec, validate_on_all=True)
    counts = {"classify": 45, "forecast": 80 - 6 - 3 + 1}
    actual, previous = (sum(b.size for b in t.validation(FULL_SHARD)) for t in (full, task))
    assert actual == counts.get(example, actual)
    assert actual > 2 * previous


def test_one_row_is_enough_to_measure(tmp_path: Path) -> None:
    task = Classification.read(config_of("classify", tmp_path))
    (tmp_path / "one.csv").write_text("label,body\nsoft,aei\n")
    config = dataclasses.replace(task.config, paths=(str(tmp_path / "one.csv"),))
    single = Classification.read(config, task.codec, validate_on_all=True)
    model = task.build_model(task.model_arguments()).eval()
    chance = class_probabilities(model, task.codec, ["aei"])[
        0, task.codec.labels.encode(["soft"])
    ].item()
    assert measure(single, model)["loss"] == pytest.approx(-math.log(chance), rel=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_an_empty_text_is_classified_by_the_initial_state(pooling: str) -> None:
    config = ClassificationConfig(hidden_size=4, pooling=pooling, bidirectional=False, batch_size=1)
    data = LabelledSequences(["", "ab", "b", ""], ["x", "y", "x", "y"], [False, False, True, True])
    task = Classification(config, data)
    model = task.build_model(task.model_arguments()).eval()
    single, batched = (
        class_probabilities(model, task.codec, [""])[0],
        class_probabilities(model, task.codec, ["", "ab"])[0],
    )
    assert single.tolist() == pytest.approx(batched.tolist(), rel=1e-6)
    assert math.isfinite(measure(task, model)["loss"])
    assert prefix_probabilities(model, task.codec, "").shape == (0, 2)
