"""Resets: a cut makes two sequences of one, in both directions, on every engine and for every cell.

The oracle runs each episode alone, without resets or lengths.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.subjects import (
    Subject,
    gradients,
    pack,
    random_like,
    run,
    states,
    tokens,
    unpack,
)
from tests.support.tolerances import assert_equal, close
from unrolled import nn
from unrolled.cells import Cell, exp, tanh

NAN = float("nan")
T, N = 6, 4
CUTS = torch.zeros(T, N, dtype=torch.bool)
CUTS[[0, 3, 2, 3, 4, 0, 5, 1], [0, 0, 1, 1, 1, 2, 3, 3]] = True
STACKS: list[dict[str, Any]] = [
    {},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "merge": "sum"},
]
LOST: list[tuple[str, list[int] | None, str, bool]] = [
    ("input", None, "everything", False),
    ("input", [5, 6], "final states", False),
    ("hx", None, "everything", False),
    ("hx", [5, 6], "final states", False),
    ("both", [5, 6], "everything", False),
    ("both", None, "final states", False),
    ("input", [5, 6], "everything", True),
    ("both", None, "everything", True),
    ("hx", [5, 6], "final states", True),
]
States = tuple[Tensor, ...]


def close_all(actual: Any, expected: Any, label: str) -> None:
    for k, (mine, reference) in enumerate(zip(actual, expected, strict=True)):
        close(mine, reference, label, f"{label} {k}")


def by_episodes(
    layer: nn.Recurrent,
    x: Tensor,
    hx: States,
    cuts: Tensor,
    reset_state: States | None = None,
    lengths: list[int] | None = None,
) -> tuple[Tensor, ...]:
    """Output and final states [T, N, ·] of a time-major batch, each episode run alone."""
    rows = []
    backward = torch.arange(hx[0].shape[0]) % layer.spec.num_directions == 1
    for n in range(x.shape[1]):
        length = x.shape[0] if lengths is None else lengths[n]
        begin = tuple(state[:, n : n + 1] for state in hx)
        if length == 0:
            rows.append((x.new_zeros(x.shape[0], 1, layer.spec.output_size), *begin))
            continue
        repeated = reset_state or tuple(torch.zeros_like(state) for state in hx)
        repeated = tuple(s.expand(-1, x.shape[1], -1)[:, n : n + 1] for s in repeated)
        starts = [t for t in range(length) if t == 0 or cuts[t, n]]
        outputs, ends = [], []
        for start, stop in zip(starts, [*starts[1:], length], strict=True):
            ahead = start == 0 and not cuts[0, n]
            behind = stop == length
            passed = torch.where(backward, torch.tensor(behind), torch.tensor(ahead))
            mixed = [
                torch.stack([(b if p else a)[k] for k, p in enumerate(passed)])
                for b, a in zip(begin, repeated, strict=True)
            ]
            output, *end = run(layer, x[start:stop, n : n + 1], pack(mixed))
            outputs.append(output)
            ends.append(end)
        final = [
            torch.stack([(head if b else tail)[k] for k, b in enumerate(backward)])
            for head, tail in zip(ends[0], ends[-1], strict=True)
        ]
        padding = x.new_zeros(x.shape[0] - length, 1, layer.spec.output_size)
        rows.append((torch.cat([*outputs, padding]), *final))
    return tuple(torch.cat(parts, 1) for parts in zip(*rows, strict=True))


@pytest.mark.sampled
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize("lengths", [None, [5, 0, 6, 3]])
@pytest.mark.parametrize("reset_state", ["zeros", "one for all", "one for each"])
def test_resets_are_separate_sequences(
    subject: Subject, options: dict[str, Any], lengths: list[int] | None, reset_state: str
) -> None:
    layer = subject.layer(**options)
    x, hx = tokens(T, N, 3), states(layer, N)
    reset_states = (
        None
        if reset_state == "zeros"
        else states(layer, 1 if reset_state == "one for all" else N, seed=9)
    )
    passed = None if reset_states is None else pack(reset_states)
    actual = run(layer, x, pack(hx), resets=CUTS, lengths=lengths, reset_state=passed)
    expected = by_episodes(layer, x, hx, CUTS, reset_states, lengths)
    close_all(actual, expected, "output")
    leaves = [x, *hx, *(reset_states or ()), *layer.parameters()]
    grads = gradients(actual, leaves)
    close_all(grads, gradients(expected, leaves), "gradient")
    if layer.spec.num_directions == 1:
        assert (grads[1][:, 2] == 0).all()  # row 2 is cut at 0: nothing depends on its hx


@pytest.mark.sampled
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_resets_of_a_packed_sequence(
    subject: Subject, options: dict[str, Any], enforce_sorted: bool
) -> None:
    layer = subject.layer(**options)
    lengths = [6, 5, 5, 2] if enforce_sorted else [5, 2, 6, 5]
    x, hx, reset_state = tokens(T, N, 3), states(layer, N), states(layer, N, seed=9)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    output, final = layer(packed, pack(hx), resets=CUTS, reset_state=pack(reset_state))
    actual = [pad_packed_sequence(output)[0], *unpack(final)]
    expected = by_episodes(layer, x, hx, CUTS, reset_state, lengths)
    close_all(actual, expected, "output")
    leaves = [x, *hx, *reset_state, *layer.parameters()]
    close_all(gradients(actual, leaves), gradients(expected, leaves), "gradient")


@pytest.mark.sampled
@pytest.mark.parametrize("options", STACKS)
def test_resets_batch_first_and_unbatched(subject: Subject, options: dict[str, Any]) -> None:
    layer = subject.layer(**options)
    x, hx, reset_state = tokens(T, N, 3), states(layer, N), states(layer, N, seed=9)
    expected = run(layer, x, pack(hx), resets=CUTS, reset_state=pack(reset_state))
    for n in range(N):
        row_states = [s[:, n] for s in hx], [s[:, n] for s in reset_state]
        episode = run(
            layer, x[:, n], pack(row_states[0]), resets=CUTS[:, n], reset_state=pack(row_states[1])
        )
        close_all(episode, [part[:, n] for part in expected], "output")
    episode = run(layer, x[:, 1], pack([s[:, 1] for s in hx]), resets=CUTS[:, 1])
    close(episode[0], by_episodes(layer, x, hx, CUTS)[0][:, 1], "output")
    layer.batch_first = True
    output, *final = run(
        layer, x.transpose(0, 1), pack(hx), resets=CUTS.t(), reset_state=pack(reset_state)
    )
    close_all([output.transpose(0, 1), *final], expected, "output")


def test_a_cut_at_the_start_does_not_cut_the_reverse_direction(subject: Subject) -> None:
    layer = subject.layer(bidirectional=True)
    x, hx = tokens(T, N, 3), states(layer, N)
    at_start = torch.zeros(T, N, dtype=torch.bool)
    at_start[0] = True
    cut, unsplit = run(layer, x, pack(hx), resets=at_start), run(layer, x, pack(hx))
    close_all([s[1] for s in cut[1:]], [s[1] for s in unsplit[1:]], "output")
    ahead = gradients([s[0] for s in cut[1:]], hx)
    assert all((gradient == 0).all() for gradient in ahead)
    zeros = run(layer, x, pack([torch.zeros_like(s) for s in hx]))
    close_all([s[0] for s in cut[1:]], [s[0] for s in zeros[1:]], "output")


def test_resets_that_cut_nothing_are_none(subject: Subject) -> None:
    layer, x = subject.layer(bidirectional=True), tokens(T, N, 3)
    reset_state = states(layer, N, seed=9)
    actual = run(
        layer, x, resets=torch.zeros(T, N, dtype=torch.bool), reset_state=pack(reset_state)
    )
    close_all(actual, run(layer, x), "output")


def test_resets_may_be_any_array_of_bool() -> None:
    layer, x = nn.GRU(3, 4), torch.randn(T, N, 3)
    expected = run(layer, x, resets=CUTS)
    sparse = torch.zeros(T, 2 * N, dtype=torch.bool)
    sparse[:, ::2] = CUTS
    for resets in (CUTS.tolist(), CUTS.numpy(), sparse[:, ::2], CUTS.t().contiguous().t()):
        for actual, part in zip(run(layer, x, resets=resets), expected, strict=True):
            assert_equal(actual, part)
    single = run(layer, x[:, :1].expand(T, N, 3), resets=CUTS[:, 1:2].expand(T, N))
    close(single[0], run(layer, x[:, 0], resets=CUTS[:, 1])[0][:, None].expand(T, N, 4), "output")


@pytest.mark.sampled
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize(("position", "lengths", "loss", "twice"), LOST)
def test_nothing_before_a_cut_touches_what_comes_after(
    subject: Subject,
    options: dict[str, Any],
    position: str,
    lengths: list[int] | None,
    loss: str,
    twice: bool,
) -> None:
    """Row 0 is cut at t = 2 and what precedes the cut is NaN, or hx is; row 1 is whole."""
    layer = subject.layer(**options)
    cut = 0 if position == "hx" else 2
    cuts = torch.zeros(T, 2, dtype=torch.bool)
    cuts[cut, 0] = True
    x = tokens(T, 2, 3).detach()
    x[:cut, 0] = NAN
    hx = [state.detach() for state in states(layer, 2)]
    reset_state = states(layer, 1, seed=9)
    if position != "input":
        for state in hx:
            state[:: layer.spec.num_directions, 0] = NAN
    leaves = [
        x.requires_grad_(),
        *(s.requires_grad_() for s in hx),
        *reset_state,
        *layer.parameters(),
    ]
    length = T if lengths is None else lengths[0]

    output, *final = run(
        layer, x, pack(hx), lengths=lengths, resets=cuts, reset_state=pack(reset_state)
    )
    D = layer.spec.num_directions
    late = [output[cut:, 0], output[:, 1], *(s[::D, 0] for s in final), *(s[:, 1] for s in final)]

    part = x[cut:length, 0:1]
    start = [
        torch.cat([a[k : k + 1, 0:1] if k % D == 0 else s[k : k + 1, 0:1] for k in range(len(s))])
        for s, a in zip(hx, reset_state, strict=True)
    ]
    episode, *end = run(layer, part, pack(start))
    episode = torch.cat([episode, episode.new_zeros(T - length, *episode.shape[1:])])
    beside, *stop = run(
        layer,
        x[:, 1:],
        pack([s[:, 1:] for s in hx]),
        lengths=None if lengths is None else lengths[1:],
    )
    expected = [episode[:, 0], beside[:, 0], *(s[::D, 0] for s in end), *(s[:, 0] for s in stop)]
    close_all(late, expected, "output")

    if loss == "final states":
        late, expected = late[2:], expected[2:]
    output_gradients = [gradient.requires_grad_() for gradient in random_like(late)]
    actual, oracle = (
        torch.autograd.grad(
            parts,
            leaves,
            output_gradients,
            create_graph=True,
            materialize_grads=True,
            retain_graph=True,
        )
        for parts in (late, expected)
    )
    close_all(actual, oracle, "gradient")
    if twice:
        leaves = [*leaves, *output_gradients]
        second = []
        for grads in (actual, oracle):
            terms = [
                (g * gradient).sum() for g, gradient in zip(grads, random_like(grads), strict=True)
            ]
            second.append(gradients([torch.stack(terms).sum()], leaves))
        close_all(*second, "gradient")


class Overflowing(Cell):
    """A memory that may overflow where nobody sees it: the output stays finite."""

    states = ("h", "a")

    def step(self, x: Any, h: Any, state: Any) -> Any:
        a = exp(x) * (1 + state.a * state.a)
        return tanh(a + h), a


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_a_hidden_overflow_before_a_cut_touches_no_gradient(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Recurrent(Overflowing, 3, 4, dtype=torch.float64, **options)
    x = tokens(16, 2, 3).detach()
    x[:12, 0] = 900.0
    x.requires_grad_()
    cuts = torch.zeros(16, 2, dtype=torch.bool)
    cuts[12, 0] = True
    output = layer(x, resets=cuts)[0]
    assert output.isfinite().all()
    episode = layer(x[12:, :1])[0]
    leaves = [x, *layer.parameters()]
    close(output[12:, :1], episode, "output")
    close_all(gradients([output[12:, :1]], leaves), gradients([episode], leaves), "gradient")


@pytest.mark.parametrize("engine", ["reference"], indirect=True)
def test_nan_before_a_cut_spares_the_weights_of_an_activation(engine: str) -> None:
    activation = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    layer = nn.RNN(3, 4, nonlinearity=activation.double(), dtype=torch.float64)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    cuts = torch.zeros(6, 2, dtype=torch.bool)
    cuts[2] = True

    def gradients(x: Tensor, **options: Any) -> list[Tensor]:
        output = layer(x, **options)[0]
        return list(torch.autograd.grad(output[-4:].sin().sum(), list(layer.parameters())))

    poisoned = x.clone()
    poisoned[:2] = float("nan")
    for mine, expected in zip(gradients(poisoned, resets=cuts), gradients(x[2:]), strict=True):
        torch.testing.assert_close(mine, expected)
