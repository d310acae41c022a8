"""Pooling and its prefixes against plain loops, and values in the padding."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import wiring
from tests.support.subjects import gradients, pack, random_like, states
from tests.support.tolerances import assert_equal, close
from unrolled.models import Pooling, SequenceModel

NAMES = ["last", "mean", "max", "attention"]
T, N, W = 7, 4, 3
LENGTHS = torch.tensor([3, 7, 0, 1])


def new_pooling(name: str, directions: int = 1) -> Pooling:
    return wiring.drawn(Pooling(name, W * directions, directions))


def outputs(directions: int = 1) -> Tensor:
    return torch.randn(T, N, W * directions, dtype=torch.float64)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_plain_loop(name: str, directions: int) -> None:
    pooling, y = new_pooling(name, directions), outputs(directions)
    final = torch.randn(2 * directions, N, W, dtype=torch.float64)
    unmasked, cut = pooling(y, final), pooling(y, final, LENGTHS)
    for n in range(N):
        row_state = final[:, n : n + 1]
        close(unmasked[n], wiring.pooled(pooling, y[:, n], row_state), "output")
        close(cut[n], wiring.pooled(pooling, y[: LENGTHS[n], n], row_state), "output")
    # Of several states the first is what the layer puts out.
    close(pooling(y, (final, torch.zeros_like(final)), LENGTHS), cut, "output")


def test_pooling_by_hand() -> None:
    y = torch.tensor([[[1.0, -4.0]], [[3.0, -2.0]], [[8.0, 8.0]]])
    final, two = torch.tensor([[[5.0, 6.0]]]), torch.tensor([2])
    assert Pooling("last", 2)(y, final, two).tolist() == [[5.0, 6.0]]
    assert Pooling("mean", 2)(y, final, two).tolist() == [[2.0, -3.0]]
    assert Pooling("max", 2)(y, final, two).tolist() == [[3.0, -2.0]]
    attention = Pooling("attention", 2)
    attention.keys.weight.data = torch.tensor([[1e3, 0.0], [0.0, 0.0]])
    torch.nn.init.zeros_(attention.keys.bias)
    # Scores log(3)/2 · (1, -1): the first step weighs three times the second.
    attention.query.weight.data = torch.tensor([[3.0, 1.0]]).log() / 2
    y = torch.tensor([[[1.0, -4.0]], [[-3.0, -2.0]], [[8.0, 8.0]]])
    torch.testing.assert_close(attention(y, final, two), torch.tensor([[0.0, -3.5]]))


@pytest.mark.parametrize("name", ["mean", "max", "attention"])
def test_nan_behind_a_sequence_reaches_nothing(name: str) -> None:
    """Nor gradients, of the outputs or of the pooling's own parameters."""
    pooling, clean = new_pooling(name), outputs()
    behind = (torch.arange(T)[:, None] >= LENGTHS)[..., None]
    sides = []
    for y in (clean.masked_fill(behind, torch.nan), clean.masked_fill(behind, 9.0)):
        y.requires_grad_()
        actual = pooling(y, torch.zeros(1, N, W), LENGTHS)
        sides.append(
            [actual, *gradients([actual], [y, *pooling.parameters()], random_like([actual]))]
        )
    for a, b in zip(*sides, strict=True):
        assert_equal(a, b)
    assert not sides[0][1].masked_select(behind).any()
    assert sides[0][0][2].tolist() == [0.0] * W


@pytest.mark.parametrize("name", NAMES)
def test_as_it_runs_it_is_that_of_each_prefix(name: str) -> None:
    pooling, y = new_pooling(name), outputs().requires_grad_()
    leaves = [y, *pooling.parameters()]
    running = pooling.forward_prefixes(y)
    prefixes = torch.stack([pooling(y[: t + 1], y[None, t]) for t in range(T)])
    close(running, prefixes, "output")
    start = random_like([running])
    for a, b in zip(
        *(gradients([side], leaves, start) for side in (running, prefixes)), strict=True
    ):
        close(a, b, "gradient")


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_scores_far_apart_as_it_runs(sign: float) -> None:
    """The first step's weight, against the last's, is e^-400 or e^400: in float32 nothing or ∞."""
    pooling = Pooling("attention", W)
    torch.nn.init.eye_(pooling.keys.weight)
    pooling.query.weight.data.fill_(200.0 * sign)
    y = torch.linspace(-2.0, 2.0, T)[:, None, None].expand(T, 1, W).clone().requires_grad_()
    running = pooling.forward_prefixes(y)
    prefixes = torch.stack([pooling(y[: t + 1], y[None, t]) for t in range(T)])
    close(running, prefixes, "output")
    grads, expected = (
        gradients([side], [y], random_like([prefixes]))[0] for side in (running, prefixes)
    )
    assert grads.isfinite().all()
    close(grads, expected, "gradient")


@pytest.mark.parametrize("cell", ["GRU", "LSTM", "CoRNN", wiring.PEEPHOLE])
@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_output_after_each_step_is_that_of_the_prefix(name: str | None, cell: str) -> None:
    options: dict[str, Any] = {"initial": "learned", "num_layers": 2, "pooling": name}
    model = wiring.drawn(SequenceModel(5, 2, cell=cell, hidden_size=4, **options))
    x = torch.randint(5, (T, N))
    for state in (None, pack(states(model.recurrent, N))):
        actual = model.forward_prefixes(x, state)
        for t in range(T):
            output, _ = model(x[: t + 1], state)
            close(actual[t], output if name else output[-1], "output")


@pytest.mark.parametrize("name", [None, *NAMES])
def test_two_directions_do_not_run(name: str | None) -> None:
    model = SequenceModel(5, 2, bidirectional=True, pooling=name)
    with pytest.raises(ValueError, match="bidirectional must be False, got True"):
        model.forward_prefixes(torch.randint(5, (T, N)))


@pytest.mark.parametrize("name", NAMES)
def test_a_pooling_of_two_directions_does_not_run(name: str) -> None:
    with pytest.raises(ValueError, match="the layer must have one direction, got two; the second"):
        new_pooling(name, 2).forward_prefixes(outputs(2))


def test_an_unknown_pooling_raises() -> None:
    with pytest.raises(
        ValueError, match="Pooling: pooling must be one of last, mean, max, attention, got"
    ):
        Pooling("min", W)
