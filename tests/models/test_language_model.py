"""The language model, its text and its generation, against values that can be worked out."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unrolled.config import LanguageModelConfig
from unrolled.io import FileError
from unrolled.models import LanguageModel, OneHot, load_tree, save_tree
from unrolled.tasks import (
    LanguageModelScore,
    Shard,
    TextError,
    Vocabulary,
    Windows,
    detach_state,
    distribution,
    generate,
    load_language_model,
    next_token_loss,
    read_text,
    score_language_model,
    split_tokens,
    standard_library,
)
from unrolled.tasks._language_modeling import LanguageModeling
from unrolled.tasks.codecs._subword import SubwordVocabulary

V = 11


def small(cell: str = "GRU", input: str = "embedding", layers: int = 1) -> LanguageModel:
    sizes = {"hidden_size": 8, "num_layers": layers, "embedding_size": 5}
    return LanguageModel(V, cell=cell, input=input, **sizes).eval()


# One-hot and embedding


def test_an_embedding_is_the_one_hot_product() -> None:
    tokens = torch.randint(V, (7, 3))
    embedding = nn.Embedding(V, 5)
    assert torch.equal(embedding(tokens), OneHot(V)(tokens) @ embedding.weight)


def test_one_hot_is_ones_in_the_right_places() -> None:
    assert OneHot(3)(torch.tensor([[2, 0]])).tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    assert OneHot(3).double()(torch.tensor(1)).dtype == torch.float64
    assert OneHot(3).state_dict() == {}
    with pytest.raises(RuntimeError, match="out of bounds"):
        OneHot(3)(torch.tensor([3]))


@pytest.mark.parametrize("cell", ["GRU", "LSTM", "RNN"])
def test_one_hot_input_is_an_embedding_folded_into_the_first_layer(cell: str) -> None:
    embedded, direct = small(cell), small(cell, "one-hot")
    state = {k: v for k, v in embedded.state_dict().items() if not k.startswith("encoder")}
    # W_ih (E i) = (W_ih Eᵀ) one-hot(i)
    folded = state["recurrent.weight_ih_l0"] @ embedded.encoder.weight.t()
    direct.load_state_dict(state | {"recurrent.weight_ih_l0": folded})
    tokens = torch.randint(V, (9, 2))
    torch.testing.assert_close(direct(tokens)[0], embedded(tokens)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 0}, "SequenceModel: hidden_size must be at least 1, got 0"),
        ({"cell": "grru"}, "find_cell: cell must be one of .* got 'grru'; did you mean GRU?"),
        ({"input": "one_hot"}, "input must be one of embedding, one-hot, numbers, got 'one_hot'"),
        ({"input": "numbers"}, "LanguageModel: input must be embedding or one-hot, got 'numbers'"),
        ({"bidirectional": True}, "LanguageModel: bidirectional must be False, got True"),
        ({"pooling": "mean"}, "LanguageModel: pooling must be None, got 'mean'"),
        (
            {"initial": "random"},
            "SequenceModel: initial must be one of zero, learned, got 'random'",
        ),
        ({"dropout": 1.0}, r"SequenceModel: dropout must be a probability in \[0, 1\), got 1.0"),
    ],
)
def test_the_model_names_a_wrong_argument(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageModel(V, **arguments)


# Loss and measures


def test_a_uniform_model_needs_log2_v_bits() -> None:
    model = small()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    measured = score_language_model(model, Windows(torch.randint(V, (200,)), 3, 10, partial=True))
    assert measured.bits_per_character == pytest.approx(math.log2(V), rel=1e-6)
    assert measured.perplexity == pytest.approx(V, rel=1e-6)
    assert measured.tokens == 198


def test_units_of_a_score() -> None:
    assert LanguageModelScore(math.log(2)).bits_per_character == 1.0
    assert LanguageModelScore(0.0).perplexity == 1.0
    assert LanguageModelScore(1e6).perplexity == math.inf


def test_the_loss_is_the_mean_over_all_tokens() -> None:
    logits, targets = torch.randn(4, 3, V), torch.randint(V, (4, 3))
    losses = [
        -math.log(math.exp(logits[t, n, targets[t, n]]) / logits[t, n].exp().sum())
        for t in range(4)
        for n in range(3)
    ]
    assert next_token_loss(logits, targets).item() == pytest.approx(sum(losses) / 12, rel=1e-5)


# Windows and carried state


def test_windows_cut_the_text_into_streams() -> None:
    windows = Windows(torch.arange(15, dtype=torch.uint8), streams=2, length=3)
    assert (len(windows), windows.targets) == (2, 12)
    window, next_window = windows
    assert window.inputs.t().tolist() == [[0, 1, 2], [7, 8, 9]]
    assert window.targets.t().tolist() == [[1, 2, 3], [8, 9, 10]]
    assert next_window.inputs.t().tolist() == [[3, 4, 5], [10, 11, 12]]
    assert (window.at_start, next_window.at_start) == (True, False)
    assert window.inputs.dtype == torch.int64


def test_a_partial_window_takes_the_rest() -> None:
    windows = Windows(torch.arange(15), streams=2, length=4, partial=True)
    assert [w.inputs.shape[0] for w in windows] == [4, 3]
    targets = sorted(t for w in windows for t in w.targets.flatten().tolist())
    assert targets == list(range(1, 15))
    assert windows.targets == 14
    assert [w.inputs.shape[0] for w in Windows(torch.arange(15), 2, 4)] == [4]


def test_shares_of_a_window_are_its_streams() -> None:
    window = Windows(torch.arange(31), streams=5, length=3)[1]
    parts = [window.shard(Shard(rank, 2)) for rank in range(2)]
    assert torch.equal(parts[0].inputs, window.inputs[:, [0, 2, 4]])
    assert torch.equal(parts[1].targets, window.targets[:, [1, 3]])
    assert [(part.size, part.total) for part in parts] == [(9, 15), (6, 15)]
    assert (window.size, window.total) == (15, 15)


@pytest.mark.parametrize("cell", ["GRU", "LSTM", "RNN"])
def test_windows_with_carried_state_equal_one_long_sequence(cell: str) -> None:
    model = small(cell, layers=2)
    windows = Windows(torch.randint(V, (61,)), streams=3, length=7, partial=True)
    logits_of_text, _ = model(torch.cat([w.inputs for w in windows]))
    state, parts = None, []
    for window in windows:
        logits, state = model(window.inputs, state)
        state = detach_state(state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts), logits_of_text)
    expected = next_token_loss(logits_of_text, torch.cat([w.targets for w in windows])).item()
    assert score_language_model(model, windows).loss == pytest.approx(expected, rel=1e-6)


def test_each_pass_begins_from_zero_state() -> None:
    model = small()
    windows = Windows(torch.randint(V, (41,)), streams=2, length=5)
    twice = score_language_model(model, [*windows, *windows])
    assert twice.loss == pytest.approx(score_language_model(model, windows).loss, rel=1e-9)


def test_the_end_of_the_text_is_for_validation() -> None:
    training, validation = split_tokens(torch.arange(100), 0.1)
    assert (training.tolist(), validation.tolist()) == (list(range(90)), list(range(90, 100)))
    assert len(split_tokens(torch.arange(100), 0.5, limit=7)[1]) == 7


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda: Windows(torch.arange(20), 4, 5), "at least 21 tokens for 4 streams .* got 20"),
        (lambda: Windows(torch.arange(0), 1, 1), "at least 2 tokens"),
        (lambda: split_tokens(torch.arange(10), 0.01), "got 10 in total, 0 of them for validation"),
        (lambda: split_tokens(torch.arange(3), 0.6), "got 3 in total, 2 of them for validation"),
    ],
)
def test_short_texts_raise(cut: Callable[[], object], message: str) -> None:
    with pytest.raises(TextError, match=message):
        cut()


# Generation

LOGITS = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("arguments", "probabilities"),
    [
        ({}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        ({"temperature": 0.0}, [0, 1, 0, 0, 0]),
        ({"temperature": 1e-300}, [0, 1, 0, 0, 0]),
        ({"temperature": 0.5}, [0.01, 0.16, 0.0025, 0.0625, 0.04]),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"top_k": 2}, [0, 0.4, 0, 0.25, 0]),
        ({"top_k": 99}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        # 0.4 + 0.25 = 0.65 falls short of 0.7; with 0.2 it is reached.
        ({"top_p": 0.7}, [0, 0.4, 0, 0.25, 0.2]),
        ({"top_p": 0.6}, [0, 0.4, 0, 0.25, 0]),
        ({"top_p": 0.39}, [0, 1, 0, 0, 0]),
        ({"top_p": 1e-9}, [0, 1, 0, 0, 0]),
        # Of 0.4, 0.25, 0.2 the first is 0.47 and the first two are 0.76.
        ({"top_k": 3, "top_p": 0.75}, [0, 0.4, 0, 0.25, 0]),
        ({"top_k": 3, "top_p": 0.77}, [0, 0.4, 0, 0.25, 0.2]),
    ],
)
def test_distributions_by_hand(arguments: dict, probabilities: list[float]) -> None:
    expected = torch.tensor(probabilities, dtype=torch.float64)
    torch.testing.assert_close(distribution(LOGITS, **arguments), expected / expected.sum())


def test_ties_keep_exactly_k() -> None:
    assert distribution(torch.zeros(6), top_k=4).count_nonzero() == 4
    assert distribution(torch.zeros(4), top_p=0.5).count_nonzero() == 2


@pytest.mark.parametrize("cell", ["GRU", "LSTM", "RNN"])
def test_greedy_generation_is_the_argmax_of_the_whole_sequence(cell: str) -> None:
    model, prefix = small(cell, layers=2), torch.randint(V, (4,))
    written = generate(model, prefix, 12, temperature=0.0)
    logits, _ = model(torch.cat([prefix, written]).unsqueeze(1))
    assert written.tolist() == logits[3:-1, 0].argmax(-1).tolist()
    assert torch.equal(generate(model, prefix, 12, temperature=5.0, top_k=1), written)


def test_the_seed_decides_what_is_written() -> None:
    model, prefix = small(), torch.tensor([1])

    def write(seed: int) -> list[int]:
        return generate(model, prefix, 30, generator=torch.Generator().manual_seed(seed)).tolist()

    assert write(1) == write(1)
    assert write(1) != write(2)
    state = torch.get_rng_state()
    write(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_follow_the_distribution() -> None:
    model = small()
    nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.linspace(-1.0, 1.0, V)
    written = generate(model, torch.tensor([0]), 4000, generator=torch.Generator().manual_seed(0))
    expected = torch.softmax(model.head.bias, 0) * 4000
    chi_square = ((torch.bincount(written, minlength=V) - expected) ** 2 / expected).sum()
    assert chi_square < 30  # ten degrees of freedom: more in one of a thousand


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0, got -1.0"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
        ({"length": -1}, "length must be at least 0, got -1"),
        ({"prefix": torch.tensor([], dtype=torch.int64)}, "prefix must have at least one token"),
    ],
)
def test_generation_names_a_wrong_argument(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(small(), **({"prefix": torch.tensor([0]), "length": 1} | arguments))


# Text and vocabulary


def test_folders_are_read_in_order(tmp_path: Path) -> None:
    names = ["b/z.txt", "b/a.txt", "a.txt", "c.py", ".hidden", ".git/x.txt", "site-packages/y.txt"]
    random.Random(0).shuffle(names)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name};")
    (tmp_path / "picture.txt").write_bytes(b"PNG\0\1\2")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    assert read_text([tmp_path]) == b"a.txt;\nc.py;\ncaf\xe9\nb/a.txt;\nb/z.txt;"
    assert read_text([tmp_path], suffixes=[".py"]) == b"c.py;"
    assert read_text([tmp_path / "c.py", tmp_path / "a.txt"]) == b"c.py;\na.txt;"
    assert read_text([tmp_path], limit=9) == b"a.txt;\nc."
    assert read_text([tmp_path / "picture.txt"]) == b"PNG\0\1\2"


def test_without_paths_the_text_is_the_standard_library() -> None:
    files = list(standard_library())
    assert {"argparse.py", "random.py"} <= {file.name for file in files}
    assert not [file for file in files if "site-packages" in file.parts]
    assert all(file.suffix == ".py" for file in files)
    text = read_text(limit=100_000)
    assert len(text) == 100_000
    assert text == read_text(limit=100_000)
    assert files[0].read_bytes().startswith(text[:100])


def test_unusable_text_raises(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="absent: must be a file or a folder"):
        read_text([tmp_path / "absent"])
    with pytest.raises(TextError, match="must have some text, got none"):
        read_text([tmp_path])
    (tmp_path / "empty").touch()
    with pytest.raises(TextError, match=r"in files ending in \.md, got none"):
        read_text([tmp_path], suffixes=[".md"])


def test_bytes_are_a_vocabulary_of_any_text() -> None:
    vocabulary = Vocabulary()
    text = "naïve — 猫\n".encode()
    assert len(vocabulary) == 256
    assert bytes(vocabulary.encode(text).tolist()) == text
    assert vocabulary.decode(vocabulary.encode(text)) == text.decode()
    assert vocabulary.decode([0x66, 0xFF]) == "f\ufffd"
    assert vocabulary.encode(b"").tolist() == []


def test_characters_are_numbered_as_seen() -> None:
    vocabulary = Vocabulary.of("hello 猫".encode())
    assert vocabulary.characters == " ehlo猫"
    assert vocabulary.encode("ohé"[:2].encode()).tolist() == [4, 2]
    assert vocabulary.decode(torch.tensor([5, 1])) == "猫e"
    assert Vocabulary.from_state(vocabulary.state()).characters == vocabulary.characters
    with pytest.raises(TextError, match="got 'x' 'é'"):
        vocabulary.encode("héx".encode())
    with pytest.raises(ValueError, match="characters must be distinct"):
        Vocabulary("aa")


# Reading a model back


def test_a_model_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    model = small("LSTM", "one-hot", layers=2)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    vocabulary = Vocabulary("abcdefghijk")
    parts = {"model": model.arguments, "codec": vocabulary.state(), "state_dict": weights}
    tree = {"task": "lm", **parts}
    save_tree(tmp_path / "m", tree)
    loaded, loaded_vocabulary = load_language_model(tmp_path / "m")
    tokens = torch.randint(V, (5, 2))
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])
    assert loaded_vocabulary.characters == "abcdefghijk"
    assert not loaded.training


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model", "holds no model of lm"),
        ("codec", "holds no model of lm"),
        ("state_dict", "holds no model of lm"),
        ("task", "not a checkpoint"),
    ],
)
def test_a_file_without_a_model_raises(tmp_path: Path, missing: str, message: str) -> None:
    model = small()
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    parts = {"model": model.arguments, "codec": Vocabulary().state(), "state_dict": weights}
    tree = {"task": "lm", **parts}
    del tree[missing]
    save_tree(tmp_path / "m", tree)
    with pytest.raises(FileError, match=f"m: .*{message}"):
        load_language_model(tmp_path / "m")
    assert missing not in load_tree(tmp_path / "m")


def test_pieces_are_learned_without_the_validation_and_measured_by_its_bytes(
    tmp_path: Path,
) -> None:
    """Bits a character are nats a text over ln 2 and its bytes, whatever the pieces are."""
    text = b"the cat sat on the mat. " * 60 + b"zyx wvu tsr " * 40
    (tmp_path / "text").write_bytes(text)
    options: dict[str, Any] = {"vocabulary": "bpe", "vocabulary_size": 300, "window": 16}
    config = LanguageModelConfig(
        paths=(str(tmp_path / "text"),), validation_fraction=0.3, batch_size=4, **options
    )
    task = LanguageModeling.read(config)
    learned = SubwordVocabulary.of(text[: len(text) - round(len(text) * 0.3)], 300)
    assert task.codec.state() == learned.state()
    streams = [torch.cat([w.targets[:, n] for w in task.validation_windows]) for n in range(4)]
    size = sum(len(learned.decode_bytes(stream)) for stream in streams)
    count = float(sum(map(len, streams)))
    scores = task.scores({"loss": torch.tensor(2.5 * count), "tokens": torch.tensor(count)})
    assert scores["loss"] == pytest.approx(2.5)
    assert scores["bits_per_character"] == pytest.approx(2.5 * count / math.log(2) / size)
    assert scores["perplexity"] == pytest.approx(math.exp(2.5))
    assert size / count != pytest.approx(learned.characters_per_token, rel=0.1)
    assert f"{scores['bits_per_character']!r} bits/char" in task.format_scores(scores)
