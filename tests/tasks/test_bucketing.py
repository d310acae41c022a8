"""Batches of sequences of different lengths: the laws of the stream, and padding."""

from collections import Counter
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.tasks._bucketing import Buckets, batches_by_length, pad

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))


def lengths_of(count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 100, (count,), generator=generator).tolist()


@given(SIZES)
def test_each_item_comes_once_an_epoch_before_any_comes_again(
    sizes: tuple[int, int, int, int],
) -> None:
    count, batch_size, pool, seed = sizes
    buckets = Buckets(lengths_of(count), batch_size, seed, pool)
    counts: Counter[int] = Counter(dict.fromkeys(range(count), 0))
    for step in range(3 * count // batch_size + 2):
        batch = buckets.items(step)
        assert len(batch) == batch_size
        previous = min(counts.values())
        full = (previous + 1) * count  # an epoch ends with this many items
        counts.update(batch)
        if counts.total() <= full:
            assert max(counts.values()) == previous + 1
        if counts.total() >= full:
            assert min(counts.values()) >= previous + 1


@given(SIZES, st.integers(0, 200))
def test_a_step_alone_equals_the_step_in_order(sizes: tuple[int, int, int, int], step: int) -> None:
    count, batch_size, pool, seed = sizes
    lengths = lengths_of(count)
    in_turn = Buckets(lengths, batch_size, seed, pool)
    expected = [in_turn.items(k) for k in range(step + 1)][-1]
    assert Buckets(torch.tensor(lengths), batch_size, seed, pool).items(step) == expected
    assert in_turn.items(step) == expected


def padding(lengths: list[int], batches: list[list[int]]) -> float:
    """The part of the batches' cells that is padding."""
    cells = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / cells


@pytest.mark.parametrize(("count", "max_padding"), [(400, 0.18), (5000, 0.04)])
def test_buckets_leave_little_padding(count: int, max_padding: float) -> None:
    lengths = lengths_of(count)
    buckets = Buckets(lengths, 16, seed=1)
    steps = 3 * count // 16
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    without = padding(lengths, [order[i : i + 16] for i in range(0, count - 15, 16)])
    assert without > 0.4
    assert padding(lengths, [buckets.items(k) for k in range(steps)]) < max_padding


def test_seeds_and_epochs_differ() -> None:
    lengths = lengths_of(64)

    def epoch(seed: int, number: int) -> list[list[int]]:
        buckets = Buckets(lengths, 8, seed)
        return [buckets.items(8 * number + k) for k in range(8)]

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(1, 0)
    together = [{frozenset(batch) for batch in epoch(0, number)} for number in range(3)]
    assert not together[0] & together[1]
    assert not together[1] & together[2]


def test_long_and_short_batches_come_in_a_random_order() -> None:
    lengths = lengths_of(5000)
    buckets = Buckets(lengths, 10, seed=0)
    longest = [max(lengths[i] for i in buckets.items(k)) for k in range(32)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
    assert len(set(longest)) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1), "lengths must have at least one item, got none"),
        (([1], 0), "batch_size must be at least 1, got 0"),
        (([1], 1, -1), "seed must be at least 0, got -1"),
        (([1], 1, 0, 0), "pool must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_raise(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Buckets(*arguments)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        Buckets([1], 1).items(-1)


def test_every_item_once_for_measuring() -> None:
    lengths = [5, 1, 4, 1, 3]
    assert batches_by_length(lengths, 2) == [[1, 3], [4, 2], [0]]
    assert sorted(chain(*batches_by_length(torch.tensor(lengths), 3))) == [0, 1, 2, 3, 4]
    assert batches_by_length([], 3) == []
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        batches_by_length(lengths, 0)


def test_padding_is_behind_the_end() -> None:
    batch, lengths = pad([torch.tensor([1, 2, 3]), torch.tensor([], dtype=torch.int64)], -1)
    assert batch.tolist() == [[1, -1], [2, -1], [3, -1]]
    assert (lengths.tolist(), lengths.dtype, batch.dtype) == ([3, 0], torch.int64, torch.int64)
    vectors, _ = pad([torch.ones(1, 2), torch.zeros(2, 2)], 0.5)
    assert vectors.tolist() == [[[1.0, 1.0], [0.0, 0.0]], [[0.5, 0.5], [0.0, 0.0]]]
    with pytest.raises(ValueError, match="sequences must not be empty, got none"):
        pad([], 0)
