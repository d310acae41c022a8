"""The tagger against a loop that reads each word's characters alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import wiring
from tests.support.subjects import gradients, random_like
from tests.support.tolerances import assert_equal, close
from unrolled.models import CellNameError, Tagger

WORDS, CHARACTERS, LABELS = 9, 6, 4
LENGTHS = [3, 5, 1, 0]
T, N, C = 5, len(LENGTHS), 7

CASES: list[dict[str, Any]] = [
    {},
    {"cell": "LSTM", "num_layers": 2},
    {"cell": "RNN", "bidirectional": False, "embedding_size": 7},
    {"embedding_size": 1},
    {"characters": 0},
    {"characters": 0, "cell": "LSTM", "bidirectional": False},
]


def new_tagger(**options: Any) -> Tagger:
    sizes = {"characters": CHARACTERS, "hidden_size": 3, "embedding_size": 6} | options
    return wiring.drawn(Tagger(WORDS, labels=LABELS, **sizes))


def text(rubbish: int) -> tuple[Tensor, list[list[Tensor]], Tensor, Tensor]:
    """Words [T, N], each one's characters, and both as the model takes them, with rubbish where
    nothing is. A word may be empty.
    """
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(WORDS, (T, N), generator=generator)
    letters = torch.full((C, T * N), rubbish)
    spellings = torch.zeros(T * N, dtype=torch.int64)
    spelt: list[list[Tensor]] = [[] for _ in range(N)]
    sizes = iter([4, C, 0, 1, C, 3, 2, 5, 6])
    for n, length in enumerate(LENGTHS):
        words[length:, n] = rubbish
        for t in range(length):
            size = next(sizes)
            word = torch.randint(CHARACTERS, (size,), generator=generator)
            spelt[n].append(word)
            letters[:size, t * N + n], spellings[t * N + n] = word, size
    return words, spelt, letters, spellings


@pytest.mark.parametrize("options", CASES, ids=str)
def test_it_is_a_loop_over_sentences_and_words(options: dict[str, Any]) -> None:
    model = new_tagger(**options)
    words, spelt, letters, spellings = text(0)
    character_inputs = (letters, spellings) if model.characters is not None else ()
    logits = model(words, torch.tensor(LENGTHS), *character_inputs)
    assert logits.shape == (T, N, LABELS)
    mine = [logits[:length, n] for n, length in enumerate(LENGTHS) if length]
    theirs = [
        wiring.tagger(model, words[:length, n], spelt[n])
        for n, length in enumerate(LENGTHS)
        if length
    ]
    for a, b in zip(mine, theirs, strict=True):
        close(a, b, "output")
    leaves, start = list(model.parameters()), random_like(mine)
    for a, b in zip(*(gradients(side, leaves, start) for side in (mine, theirs)), strict=True):
        close(a, b, "gradient")


def test_padding_never_matters() -> None:
    model, lengths = new_tagger(num_layers=2), torch.tensor(LENGTHS)
    sides = []
    for rubbish in (0, 5):
        words, _, letters, spellings = text(rubbish)
        logits = model(words, lengths, letters, spellings)
        parts = [logits, *gradients([logits], list(model.parameters()), random_like([logits]))]
        more = torch.full((2, T * N), rubbish)
        parts.append(model(words, lengths, torch.cat([letters, more]), spellings))
        sides.append(parts)
    for a, b in zip(*sides, strict=True):
        assert_equal(a, b)
    close(sides[0][-1], sides[0][0], "output")


def test_a_word_is_read_by_its_characters_and_by_its_number() -> None:
    model, lengths = new_tagger(), torch.tensor([1])
    word, spelling = torch.tensor([[1]]), torch.tensor([[2], [3], [4]])
    output = model(word, lengths, spelling, torch.tensor([3]))
    alternatives = [
        model(word + 1, lengths, spelling, torch.tensor([3])),
        model(word, lengths, spelling.flip(0), torch.tensor([3])),
        model(word, lengths, spelling, torch.tensor([2])),
    ]
    assert all((output - alternative).abs().max() > 1e-3 for alternative in alternatives)


def test_dropout_is_in_training_only() -> None:
    model, (words, _, letters, spellings) = new_tagger(dropout=0.5), text(0)
    call = (words, torch.tensor(LENGTHS), letters, spellings)
    assert_equal(model(*call), model(*call))
    model.train()
    assert not torch.equal(model(*call), model(*call))


@pytest.mark.parametrize("options", CASES, ids=str)
def test_arguments_make_it_again(options: dict[str, Any]) -> None:
    model = new_tagger(dropout=0.1, **options)
    rebuilt = Tagger(**model.arguments).double()
    rebuilt.load_state_dict(model.state_dict())
    assert (rebuilt.arguments, str(rebuilt)) == (model.arguments, str(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": 0}, "Tagger: words must be at least 1, got 0"),
        ({"labels": 0}, "Tagger: labels must be at least 1, got 0"),
        ({"characters": -1}, "Tagger: characters must be at least 0, got -1"),
        ({"num_layers": 0}, "Tagger: num_layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"Tagger: dropout must be a probability in \[0, 1\), got 1.0"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tagger(**({"words": 2, "characters": 2, "labels": 2} | options))
    with pytest.raises(CellNameError):
        Tagger(2, 2, 2, cell="none")


def test_missing_characters_raise() -> None:
    words, _, letters, _ = text(0)
    for arguments in ((), (letters,)):
        with pytest.raises(
            ValueError, match="Tagger: characters and spellings must be tensors, got None"
        ):
            new_tagger()(words, torch.tensor(LENGTHS), *arguments)
