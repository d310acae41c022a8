"""Resets: a cut makes two sequences of one, in both directions, on every engine and for every cell.

The judge runs each episode alone, without resets or lengths.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.subjects import Subject, gradients, pack, run, slopes, states, tokens, unpack
from tests.support.tolerances import close, same
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


def close_all(actual: Any, wanted: Any, what: str) -> None:
    for k, (mine, other) in enumerate(zip(actual, wanted, strict=True)):
        close(mine, other, what, f"{what} {k}")


def by_episodes(
    layer: nn.Recurrent,
    x: Tensor,
    hx: States,
    cuts: Tensor,
    after: States | None = None,
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
        again = after or tuple(torch.zeros_like(state) for state in hx)
        again = tuple(s.expand(-1, x.shape[1], -1)[:, n : n + 1] for s in again)
        starts = [t for t in range(length) if t == 0 or cuts[t, n]]
        outputs, ends = [], []
        for start, stop in zip(starts, [*starts[1:], length], strict=True):
            ahead = start == 0 and not cuts[0, n]
            behind = stop == length
            passed = torch.where(backward, torch.tensor(behind), torch.tensor(ahead))
            mixed = [
                torch.stack([(b if p else a)[k] for k, p in enumerate(passed)])
                for b, a in zip(begin, again, strict=True)
            ]
            output, *end = run(layer, x[start:stop, n : n + 1], pack(mixed))
            outputs.append(output)
            ends.append(end)
        final = [
            torch.stack([(first if b else last)[k] for k, b in enumerate(backward)])
            for first, last in zip(ends[0], ends[-1], strict=True)
        ]
        padding = x.new_zeros(x.shape[0] - length, 1, layer.spec.output_size)
        rows.append((torch.cat([*outputs, padding]), *final))
    return tuple(torch.cat(parts, 1) for parts in zip(*rows, strict=True))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize("lengths", [None, [5, 0, 6, 3]])
@pytest.mark.parametrize("after", ["zeros", "one for all", "one for each"])
def test_resets_are_separate_sequences(
    subject: Subject, options: dict[str, Any], lengths: list[int] | None, after: str
) -> None:
    layer = subject.layer(**options)
    x, hx = tokens(T, N, 3), states(layer, N)
    given = None if after == "zeros" else states(layer, 1 if after == "one for all" else N, seed=9)
    passed = None if given is None else pack(given)
    actual = run(layer, x, pack(hx), resets=CUTS, lengths=lengths, reset_state=passed)
    wanted = by_episodes(layer, x, hx, CUTS, given, lengths)
    close_all(actual, wanted, "output")
    leaves = [x, *hx, *(given or ()), *layer.parameters()]
    found = gradients(actual, leaves)
    close_all(found, gradients(wanted, leaves), "gradient")
    if layer.spec.num_directions == 1:
        assert (found[1][:, 2] == 0).all()  # row 2 is cut at 0: nothing depends on its hx


@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_resets_of_a_packed_sequence(
    subject: Subject, options: dict[str, Any], enforce_sorted: bool
) -> None:
    layer = subject.layer(**options)
    lengths = [6, 5, 5, 2] if enforce_sorted else [5, 2, 6, 5]
    x, hx, after = tokens(T, N, 3), states(layer, N), states(layer, N, seed=9)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    output, final = layer(packed, pack(hx), resets=CUTS, reset_state=pack(after))
    seen = [pad_packed_sequence(output)[0], *unpack(final)]
    wanted = by_episodes(layer, x, hx, CUTS, after, lengths)
    close_all(seen, wanted, "output")
    leaves = [x, *hx, *after, *layer.parameters()]
    close_all(gradients(seen, leaves), gradients(wanted, leaves), "gradient")


@pytest.mark.parametrize("options", STACKS)
def test_resets_batch_first_and_unbatched(subject: Subject, options: dict[str, Any]) -> None:
    layer = subject.layer(**options)
    x, hx, after = tokens(T, N, 3), states(layer, N), states(layer, N, seed=9)
    wanted = run(layer, x, pack(hx), resets=CUTS, reset_state=pack(after))
    for n in range(N):
        one = [s[:, n] for s in hx], [s[:, n] for s in after]
        alone = run(layer, x[:, n], pack(one[0]), resets=CUTS[:, n], reset_state=pack(one[1]))
        close_all(alone, [part[:, n] for part in wanted], "output")
    alone = run(layer, x[:, 1], pack([s[:, 1] for s in hx]), resets=CUTS[:, 1])
    close(alone[0], by_episodes(layer, x, hx, CUTS)[0][:, 1], "output")
    layer.batch_first = True
    output, *final = run(
        layer, x.transpose(0, 1), pack(hx), resets=CUTS.t(), reset_state=pack(after)
    )
    close_all([output.transpose(0, 1), *final], wanted, "output")


def test_a_cut_at_the_start_does_not_cut_the_reverse_direction(subject: Subject) -> None:
    layer = subject.layer(bidirectional=True)
    x, hx = tokens(T, N, 3), states(layer, N)
    first = torch.zeros(T, N, dtype=torch.bool)
    first[0] = True
    cut, whole = run(layer, x, pack(hx), resets=first), run(layer, x, pack(hx))
    close_all([s[1] for s in cut[1:]], [s[1] for s in whole[1:]], "output")
    ahead = gradients([s[0] for s in cut[1:]], hx)
    assert all((slope == 0).all() for slope in ahead)
    zeros = run(layer, x, pack([torch.zeros_like(s) for s in hx]))
    close_all([s[0] for s in cut[1:]], [s[0] for s in zeros[1:]], "output")


def test_resets_that_cut_nothing_are_none(subject: Subject) -> None:
    layer, x = subject.layer(bidirectional=True), tokens(T, N, 3)
    after = states(layer, N, seed=9)
    seen = run(layer, x, resets=torch.zeros(T, N, dtype=torch.bool), reset_state=pack(after))
    close_all(seen, run(layer, x), "output")


def test_resets_may_be_any_array_of_bool() -> None:
    layer, x = nn.GRU(3, 4), torch.randn(T, N, 3)
    wanted = run(layer, x, resets=CUTS)
    sparse = torch.zeros(T, 2 * N, dtype=torch.bool)
    sparse[:, ::2] = CUTS
    for resets in (CUTS.tolist(), CUTS.numpy(), sparse[:, ::2], CUTS.t().contiguous().t()):
        for seen, part in zip(run(layer, x, resets=resets), wanted, strict=True):
            same(seen, part)
    one = run(layer, x[:, :1].expand(T, N, 3), resets=CUTS[:, 1:2].expand(T, N))
    close(one[0], run(layer, x[:, 0], resets=CUTS[:, 1])[0][:, None].expand(T, N, 4), "output")


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize(("where", "lengths", "loss", "twice"), LOST)
def test_nothing_before_a_cut_touches_what_comes_after(
    subject: Subject,
    options: dict[str, Any],
    where: str,
    lengths: list[int] | None,
    loss: str,
    twice: bool,
) -> None:
    """Row 0 is cut at t = 2 and what precedes the cut is NaN, or hx is; row 1 is whole."""
    layer = subject.layer(**options)
    cut = 0 if where == "hx" else 2
    cuts = torch.zeros(T, 2, dtype=torch.bool)
    cuts[cut, 0] = True
    x = tokens(T, 2, 3).detach()
    x[:cut, 0] = NAN
    hx = [state.detach() for state in states(layer, 2)]
    after = states(layer, 1, seed=9)
    if where != "input":
        for state in hx:
            state[:: layer.spec.num_directions, 0] = NAN
    leaves = [x.requires_grad_(), *(s.requires_grad_() for s in hx), *after, *layer.parameters()]
    length = T if lengths is None else lengths[0]

    output, *final = run(layer, x, pack(hx), lengths=lengths, resets=cuts, reset_state=pack(after))
    D = layer.spec.num_directions
    late = [output[cut:, 0], output[:, 1], *(s[::D, 0] for s in final), *(s[:, 1] for s in final)]

    part = x[cut:length, 0:1]
    start = [
        torch.cat([a[k : k + 1, 0:1] if k % D == 0 else s[k : k + 1, 0:1] for k in range(len(s))])
        for s, a in zip(hx, after, strict=True)
    ]
    alone, *end = run(layer, part, pack(start))
    alone = torch.cat([alone, alone.new_zeros(T - length, *alone.shape[1:])])
    beside, *stop = run(
        layer,
        x[:, 1:],
        pack([s[:, 1:] for s in hx]),
        lengths=None if lengths is None else lengths[1:],
    )
    wanted = [alone[:, 0], beside[:, 0], *(s[::D, 0] for s in end), *(s[:, 0] for s in stop)]
    close_all(late, wanted, "output")

    if loss == "final states":
        late, wanted = late[2:], wanted[2:]
    given = [slope.requires_grad_() for slope in slopes(late)]
    seen, judged = (
        torch.autograd.grad(
            parts, leaves, given, create_graph=True, materialize_grads=True, retain_graph=True
        )
        for parts in (late, wanted)
    )
    close_all(seen, judged, "gradient")
    if twice:
        leaves = [*leaves, *given]
        second = []
        for first in (seen, judged):
            terms = [(g * slope).sum() for g, slope in zip(first, slopes(first), strict=True)]
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
    alone = layer(x[12:, :1])[0]
    leaves = [x, *layer.parameters()]
    close(output[12:, :1], alone, "output")
    close_all(gradients([output[12:, :1]], leaves), gradients([alone], leaves), "gradient")
