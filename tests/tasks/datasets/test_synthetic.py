"""The classic problems: targets computed again from the inputs, by loops over single tokens."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unrolled.tasks.datasets._synthetic import (
    MEAN_ERROR,
    SyntheticProblem,
    adding,
    copy_memory,
    dyck,
    memoryless_loss,
    parity,
)

MAKERS: dict[str, Callable[..., SyntheticProblem]] = {
    "adding": adding,
    "copy_memory": copy_memory,
    "dyck": dyck,
    "parity": parity,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_adding_sums_the_two_marked_numbers() -> None:
    inputs, expected = adding(7, 50, generator())
    assert inputs.shape == (7, 50, 2)
    for n in range(50):
        marked = [x for x, mark in inputs[:, n].tolist() if mark == 1.0]
        assert len(marked) == 2
        assert expected[n].item() == pytest.approx(sum(marked), abs=1e-6)
    assert set(inputs[..., 1].unique().tolist()) == {0.0, 1.0}


def test_marks_fall_everywhere_and_the_mean_is_as_bad_as_is_said() -> None:
    inputs, expected = adding(5, 40_000, generator())
    often = inputs[..., 1].mean(1)
    assert often.tolist() == pytest.approx([2 / 5] * 5, abs=0.02)
    assert (expected - 1).square().mean().item() == pytest.approx(MEAN_ERROR, abs=0.004)


def test_copy_memory_wants_the_beginning_at_the_end() -> None:
    inputs, expected = copy_memory(6, 3, generator(), symbols=4)
    assert inputs.shape == expected.shape == (14, 3)
    for n in range(3):
        row, out = inputs[:, n].tolist(), expected[:, n].tolist()
        assert all(1 <= token <= 8 for token in row[:4])
        assert row[4:9] == [0] * 5
        assert row[9:] == [9] * 5
        assert out == [0] * 10 + row[:4]


def test_the_loss_without_memory() -> None:
    assert memoryless_loss(1000) == pytest.approx(0.0204, abs=5e-5)
    _, expected = copy_memory(20, 1000, generator())
    chances = torch.where(expected > 0, 1 / 8, 1.0)
    assert -chances.log().mean().item() == pytest.approx(memoryless_loss(20))


def test_parity_counts_ones() -> None:
    bits, expected = parity(9, 20, generator())
    for n in range(20):
        row = bits[:, n].tolist()
        assert expected[:, n].tolist() == [sum(row[: t + 1]) % 2 for t in range(9)]
    assert 0.3 < bits.double().mean().item() < 0.7


def test_dyck_words_never_close_what_is_not_open() -> None:
    words, expected = dyck(30, 40, generator())
    for n in range(40):
        depth = 0
        for t, token in enumerate(words[:, n].tolist()):
            depth += 1 if token == 0 else -1
            assert depth >= 0
            assert expected[t, n].item() == (depth == 0)
    assert 0.05 < expected.double().mean().item() < 0.5


@pytest.mark.parametrize("name", MAKERS)
def test_the_generator_decides(name: str) -> None:
    make: Any = MAKERS[name]
    batch, repeated, other_seed = (make(8, 5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(batch.inputs, repeated.inputs)
    assert torch.equal(batch.targets, repeated.targets)
    assert not torch.equal(batch.inputs, other_seed.inputs)
    with pytest.raises(ValueError, match="N must be at least 1, got 0"):
        make(8, 0)


def test_two_numbers_need_two_steps() -> None:
    with pytest.raises(ValueError, match="T must be at least 2, got 1"):
        adding(1, 3)
    assert math.isclose(float(adding(2, 1, generator()).inputs[..., 1].sum()), 2.0)
