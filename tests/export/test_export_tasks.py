"""Exported runs of every task, from the user's texts and numbers to labels, texts and forecasts, in
the runtime alone: they say what the task's own ``predict`` says.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.runtime_models import exported, random
from tests.support.small_tasks import NAMES, config_of
from tests.support.tolerances import close
from unrolled.models import EncoderDecoder, Tagger
from unrolled.nn import GRU
from unrolled.runtime import Model, Translator
from unrolled.tasks import find_task
from unrolled.tasks._classification import class_probabilities
from unrolled.tasks._forecasting import forecast
from unrolled.tasks._search import beam, greedy
from unrolled.tasks._tagging import TaggingCodec, predict_tags
from unrolled.tasks._translation import translate
from unrolled.tasks.codecs._subword import SubwordVocabulary
from unrolled.tasks.codecs._token_vocab import TokenVocabulary
from unrolled.tasks.codecs._vocabulary import Vocabulary


def export_task(task_name: str, folder: Path, **options: Any) -> tuple[Any, Any, Any, Model]:
    """Task, model, codec and the exported model of small data; weights are random, and large, so
    that what it says depends on what it read."""
    output = find_task(NAMES[task_name])
    task = output.read(config_of(task_name, folder, **options))
    model = random(output.build_model(task.model_arguments())).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter *= 0.3 if name.endswith("head.bias") else 4
    runtime = exported(model, folder, task=output.name, codec=task.codec.state())
    assert runtime.task == output.name
    return task, model, task.codec, runtime


SENTENCES = [["Ada", "Lee", "saw", "Zoë"], ["met"], ["Bo", "left", ","]]


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": False}, {"characters": False}])
def test_a_tagger(options: dict[str, Any], cell: str, tmp_path: Path) -> None:
    _, model, codec, runtime = export_task("tag", tmp_path, cell=cell, **options)
    x, lengths = runtime.encode(SENTENCES)
    batch = codec.batch(SENTENCES)
    inputs = x if isinstance(x, tuple) else (x,)
    theirs = [array for array in (batch[0], *batch[2:]) if array is not None]
    assert all(np.array_equal(a, b) for a, b in zip(inputs, theirs, strict=True))
    assert lengths.tolist() == batch[1].tolist()
    output = runtime.run(x, lengths=lengths)
    with torch.no_grad():
        close(torch.from_numpy(output), model(*batch), "output")
    decoded = runtime.decode(output, lengths)
    assert decoded == predict_tags(model, codec, SENTENCES)
    assert len({label for labels in decoded for label in labels}) > 1


def test_a_tagger_of_one_direction_steps_word_by_word(tmp_path: Path) -> None:
    _, _, _, runtime = export_task("tag", tmp_path, bidirectional=False)
    output = runtime.run(runtime.encode(SENTENCES[:1])[0])
    stream, stream_of_two = runtime.stream(), runtime.stream(2)
    for t, word in enumerate(SENTENCES[0]):
        x, _ = runtime.encode([[word]])
        copied = stream.copy()
        message = stream.step(x)
        assert np.array_equal(message[0], output[t, 0])
        assert np.array_equal(copied.step((x[0][0], *x[1:]), np.empty_like(message)), message)
        assert np.array_equal(
            stream_of_two.step(runtime.encode([["met"], [word]])[0])[1], output[t, 0]
        )
        assert runtime.decode(message) == runtime.decode(output)[0][t : t + 1]
    with pytest.raises(ValueError, match=r"WordStream: x must have 1 words, got shape \[1, 2\]"):
        stream.step(runtime.encode([["met"], ["Bo"]])[0])
    with pytest.raises(TypeError, match=r"Words: x must be \(words, characters, spellings\)"):
        stream.step(1)


def test_a_tagger_of_two_directions_does_not_step(tmp_path: Path) -> None:
    _, _, _, runtime = export_task("tag", tmp_path)
    with pytest.raises(ValueError, match="Model: stream needs one direction, got two"):
        runtime.stream()


WORDS: list[tuple[Any, type[Exception], str]] = [
    (
        np.zeros((2, 3), int),
        TypeError,
        "Words: x must be .words, characters, spellings., .* got ndarray",
    ),
    (
        (np.zeros(3, int), np.zeros((2, 3), int), np.ones(3, int)),
        ValueError,
        "Words: x must have words of shape .T, N.",
    ),
    ((np.zeros((1, 3), int), np.zeros((2, 4), int), np.ones(3, int)), ValueError, r"\[C, 3\]"),
    ((np.zeros((1, 3), int), np.zeros((2, 3), int), np.ones(4, int)), ValueError, r"\[3\], got"),
    ((np.zeros((1, 3), int), np.zeros((2, 3), int), np.full(3, 3)), ValueError, "from 0 to 2"),
    ((np.zeros((1, 3), int), np.zeros((2, 3), int), np.ones(3)), ValueError, "whole numbers"),
    ((np.full((1, 3), 9), np.zeros((2, 3), int), np.ones(3, int)), IndexError, "0 to 5, got 9"),
    ((np.zeros((1, 3), int), np.full((2, 3), -1), np.ones(3, int)), IndexError, "0 to 4, got -1"),
    ((np.zeros((1, 3)), np.zeros((2, 3), int), np.ones(3, int)), TypeError, "tokens, whole num"),
]


@pytest.mark.parametrize(("x", "error", "message"), WORDS)
def test_words_that_do_not_fit_are_reported(
    x: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    runtime = exported(Tagger(6, 5, 3, hidden_size=4, embedding_size=2), tmp_path)
    with pytest.raises(error, match=message):
        runtime.run(x)


def test_a_forecaster(tmp_path: Path) -> None:
    """With a column that is seen and not forecast; far more rows than the window has."""
    options = {"target": ("warm",), "covariate": ("wet",)}
    task, model, codec, runtime = export_task("forecast", tmp_path, **options)
    series = [task.series[0].values[:end] for end in (40, 6, 79)]
    x, lengths = runtime.encode([values.numpy() for values in series])
    assert lengths.tolist() == [codec.window] * 3
    output = runtime.run(x)
    for n, values in enumerate(series):
        close(torch.from_numpy(output[n]).float(), forecast(model, codec, values).float(), "output")
    decoded = runtime.decode(output)
    assert list(decoded) == ["warm"]
    assert np.array_equal(decoded["warm"], output[:, :, 0])
    stream, shared = runtime.stream(3), np.empty_like(output)
    for row in x:
        stepped = stream.step(row, shared)
    assert stepped is shared
    assert np.array_equal(stepped, output)
    single = runtime.stream()
    assert np.array_equal(single.step(x[0, 0])[0], runtime.run(x[:1, :1])[0])


def test_forecasts_of_large_numbers_are_as_fine_as_those_of_small_ones(tmp_path: Path) -> None:
    """A scale far from zero loses nothing to float32."""
    task, model, codec, _ = export_task("forecast", tmp_path)
    state = codec.state()
    state["mean"] = state["mean"] + 2.0**30
    runtime = exported(model, tmp_path, task="forecast", codec=state)
    values = task.series[0].values[:9].double() + 2.0**30
    output = runtime.run(runtime.encode([values.numpy()])[0])[0] - 2.0**30
    expected = forecast(model, codec, task.series[0].values[:9].double()).numpy()
    assert np.abs(output - expected).max() < 1e-5
    stream = runtime.stream()
    for row in values[-codec.window :].numpy():
        decoded = stream.step(row)
    assert np.array_equal(decoded[0] - 2.0**30, output)


def test_what_a_forecaster_cannot_read(tmp_path: Path) -> None:
    _, _, _, runtime = export_task("forecast", tmp_path)
    with pytest.raises(ValueError, match="encode: item 1 must have at least 6 steps, got 5"):
        runtime.encode([np.ones((5, 2))])
    with pytest.raises(
        ValueError, match=r"encode: item 2 must be numbers of shape \[T, 2\], got shape \[9, 1\]"
    ):
        runtime.encode([np.ones((9, 2)), np.ones((9, 1))])
    with pytest.raises(
        ValueError, match=r"Model: lengths must be at least 1 before a forecast, got \[0\]"
    ):
        runtime.run(np.ones((6, 1, 2)), lengths=[0])
    with pytest.raises(ValueError, match=r"ForecastStream: x must have shape \[2, 2\], got \[4\]"):
        runtime.stream(2).step(np.ones(4))
    with pytest.raises(TypeError, match="ForecastStream: x must be numbers"):
        runtime.stream().step(np.array([["a", "b"]]))
    stream, fresh = runtime.stream(), runtime.stream()
    with pytest.raises(
        TypeError, match=r"ForecastStream: out must be float64 of shape \[1, 3, 2\]"
    ):
        stream.step(np.ones(2), np.empty((1, 3, 2), np.float32))
    assert np.array_equal(stream.step(np.ones(2)), fresh.step(np.ones(2)))  # it took no step
    with pytest.raises(
        ValueError, match=r"decode: y must be forecasts of shape \[N, 3, 2\], got shape \[3, 2\]"
    ):
        runtime.decode(np.ones((3, 2)))
    x = np.random.default_rng(1).random((6, 2, 2))
    ends = runtime.run(x, lengths=[6, 4])
    assert np.allclose(ends[1], runtime.run(x[:4])[1], rtol=1e-12)


@pytest.mark.parametrize("task_name", ["classify", "numbers"])
def test_a_classifier(task_name: str, tmp_path: Path) -> None:
    task, model, codec, runtime = export_task(task_name, tmp_path)
    items = list(task.data.inputs[:12])
    if task_name == "classify":
        items += ["?", "", "aeiou" * 100]
    inputs = items if task_name == "classify" else [item.numpy() for item in items]
    x, lengths = runtime.encode(inputs)
    output = runtime.run(x, lengths=lengths)
    expected = class_probabilities(model, codec, items)
    close(torch.softmax(torch.from_numpy(output), -1), expected.float(), "output")
    assert runtime.decode(output) == codec.labels.decode(expected.argmax(-1))
    assert len(set(runtime.decode(output))) > 1
    with pytest.raises(
        ValueError, match=rf"decode: y must be outputs of shape \[N, {output.shape[1]}\], got shape"
    ):
        runtime.decode(output[:, 1:])


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("options", [{}, {"source_unit": "words"}, {"bidirectional": True}])
def test_a_translator(options: dict[str, Any], attention: bool, tmp_path: Path) -> None:
    task, model, codec, runtime = export_task("seq2seq", tmp_path, attention=attention, **options)
    assert isinstance(runtime, Translator)
    texts = list(dict.fromkeys(pair.source for pair in task.validation_examples))[:8]
    expected = translate(model, codec, texts, limit=12)
    assert runtime.translate(texts, limit=12) == expected
    assert len(set(expected)) > 1
    assert [runtime.translate([text], limit=12)[0] for text in texts] == expected
    best = translate(model, codec, texts[:3], limit=12, width=3)
    assert runtime.translate(texts[:3], limit=12, width=3) == best
    x, lengths = runtime.encode(texts)
    assert all(map(np.array_equal, (x, lengths), codec.encode_sources(texts)))
    with pytest.raises(ValueError, match="encode: source 2 must have at least one token, got none"):
        runtime.encode(["one", ""])
    with pytest.raises(ValueError, match=r"Translator: stream .* got a translator"):
        runtime.stream()


@pytest.mark.parametrize(
    "options",
    [{}, {"cell": "LSTM", "num_layers": 2, "bidirectional": True}, {"attention": False}],
    ids=str,
)
def test_hypotheses_are_those_of_the_model(options: dict[str, Any], tmp_path: Path) -> None:
    """Tokens and scores, also with given begin and end tokens, and for a source without a token."""
    model = random(EncoderDecoder(9, 7, hidden_size=6, embedding_size=4, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 5
    runtime: Any = exported(model, tmp_path)
    assert (runtime.begin, runtime.end) == (5, 6)
    tokens = np.random.default_rng(4).integers(0, 9, (6, 5))
    lengths = np.array([6, 2, 0, 3, 4])
    inputs = torch.from_numpy(tokens), torch.from_numpy(lengths)
    for ends in ({"begin": 5, "end": 6}, {"begin": 0, "end": 1}):
        output = runtime.run(tokens, lengths, limit=9, **ends)
        agree(output, greedy(model, *inputs, limit=9, **ends))
        best = runtime.run(tokens, lengths, limit=9, width=4, penalty=0.7, **ends)
        columns = [inputs[0][:length, n] for n, length in enumerate(lengths) if length]
        theirs = [beam(model, c, limit=9, width=4, penalty=0.7, **ends)[0] for c in columns]
        agree(
            [hypothesis for hypothesis, length in zip(best, lengths, strict=True) if length], theirs
        )
    for message, wrong in (
        ("Translator: begin must be a token from 0 to 6, got 7", {"begin": 7}),
        ("Translator: width must be at least 1, got 0", {"width": 0}),
        ("greedy: limit must be at least 1, got 0", {"limit": 0}),
        ("Model: lengths must be from 0 to 6", {"lengths": [7] * 5}),
    ):
        with pytest.raises(ValueError, match=message):
            runtime.run(tokens, **wrong)


def agree(mine: Any, theirs: Any) -> None:
    assert [hypothesis.tokens for hypothesis in mine] == [
        hypothesis.tokens for hypothesis in theirs
    ]
    scores = [
        torch.tensor([hypothesis.score for hypothesis in output]) for output in (mine, theirs)
    ]
    close(*scores, "output")


TEXT = "def f(x):\n\treturn 'ähm — 你好' + x\n\n" * 3


@pytest.mark.parametrize("task_name", ["bytes", "characters", "pieces"])
def test_texts_of_language_models(task_name: str, tmp_path: Path) -> None:
    data = TEXT.encode()
    codec: Any = {
        "bytes": Vocabulary, "characters": lambda: Vocabulary.of(data),
        "pieces": lambda: SubwordVocabulary.of(data, 290),
    }[task_name]()  # fmt: skip
    task = find_task("lm")
    model = random(task.build_model({"vocabulary_size": len(codec), "hidden_size": 5}))
    runtime = exported(model, tmp_path, task="lm", codec=codec.state())
    x, lengths = runtime.encode([TEXT, data[:15], ""])
    assert np.array_equal(x[:, 0], codec.encode(data))
    assert np.array_equal(x[: lengths[1], 1], codec.encode(data[:15]))
    assert lengths[2] == 0
    assert runtime.decode(x[:, 0]) == TEXT
    assert runtime.decode(x, lengths) == [TEXT, codec.decode(codec.encode(data[:15])), ""]
    logits = runtime.run(x, lengths=lengths)
    assert logits.shape == (*x.shape, len(codec))
    with pytest.raises(
        TypeError, match=r"decode: y must be tokens, whole .*argmax.* got float32 of shape"
    ):
        runtime.decode(logits, lengths)
    with pytest.raises(
        ValueError, match=r"decode: y must be tokens of shape \[T\] or \[T, N\], got shape \[\]"
    ):
        runtime.decode(1)
    with pytest.raises(IndexError, match="decode: y must have numbers from 0 to"):
        runtime.decode([len(codec)])
    with pytest.raises(TypeError, match="encode: items must be a list, got 'a'"):
        runtime.encode("a")
    if task_name == "characters":
        with pytest.raises(
            ValueError, match="encode: text must have characters of the vocabulary, got '#'"
        ):
            runtime.encode(["#"])


def test_texts_of_a_language_model_that_is_batch_first(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(256, 3), GRU(3, 5, batch_first=True))
    runtime = exported(model, tmp_path, task="lm", codec=Vocabulary().state())
    x, lengths = runtime.encode(["abc", "de"])
    assert x.shape == (2, 3)
    assert runtime.decode(x, lengths) == ["abc", "de"]
    assert runtime.decode(x[0]) == "abc"


def test_pieces_without_their_library_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = SubwordVocabulary.of(TEXT.encode(), 290)
    model = find_task("lm").build_model({"vocabulary_size": len(codec), "hidden_size": 5})
    runtime = exported(model, tmp_path, task="lm", codec=codec.state())
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ImportError, match="need the package tokenizers"):
        runtime.encode(["a"])
    assert runtime.run(np.zeros((1, 1), int)).shape == (1, 1, len(codec))


def test_what_cannot_be_encoded_is_reported(tmp_path: Path) -> None:
    _, model, codec, runtime = export_task("tag", tmp_path)
    for items, error, message in (
        ([["Ada"], []], ValueError, "encode: sentence 2 must have at least one word, got none"),
        ([], ValueError, "encode: items must be one or more, got none"),
        (["Ada Lee"], TypeError, "a list of sentences, each a list of words, got .* 'Ada Lee'"),
        ([[1]], TypeError, r"a list of sentences, each a list of words, got .* \[1\]"),
        ("Ada Lee", TypeError, "encode: items must be a list, got 'Ada Lee'"),
    ):
        with pytest.raises(error, match=message):
            runtime.encode(items)
    with pytest.raises(
        ValueError, match=r"decode: lengths must be 1 numbers from 0 to 2, got \[3\]"
    ):
        runtime.decode(np.ones((2, 1, 3)), [3])
    for wrong in (np.ones((2, 1, 2)), np.ones((1, 4)), np.ones(3)):
        with pytest.raises(
            ValueError, match=r"decode: y must be outputs of shape \[(T, )?N, 3\], got shape"
        ):
            runtime.decode(wrong)
    with pytest.raises(ValueError, match="Model: encode and decode need a task and its vocabulary"):
        exported(model, tmp_path).encode(SENTENCES)
    with pytest.raises(ValueError, match=r"Model: task must be one of lm, .* got 'mine'"):
        exported(model, tmp_path, task="mine", codec={}).encode(SENTENCES)
    with pytest.raises(ValueError, match="Model: codec must be that of the task tag"):
        exported(model, tmp_path, task="tag", codec={"words": 1}).encode(SENTENCES)
    strict = TaggingCodec(codec.words, None, TokenVocabulary(["a", "b"]))
    strict.words = TokenVocabulary(["Ada"], entry_type="word")
    small_vocabulary = exported(model, tmp_path, task="tag", codec=strict.state())
    with pytest.raises(ValueError, match="encode: word must be in the vocabulary, got 'Bo'"):
        small_vocabulary.encode([["Ada", "Bo"]])
