"""Laws of sequences that hold for every cell on every engine: splitting, padding, order, direction.

Resets have their own file. Each law is one about values and about gradients.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

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

STACKS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "merge": "sum", "bias": False, "batch_first": True},
]


def close_all(actual: Any, expected: Any, label: str) -> None:
    for k, (mine, reference) in enumerate(zip(actual, expected, strict=True)):
        close(mine, reference, label, f"{label} {k}")


def user(layer: nn.Recurrent, x: Tensor) -> Tensor:
    """Time-major data as the layer takes it, and back."""
    return x.transpose(0, 1) if layer.batch_first and x.dim() > 1 else x


def reverse(x: Tensor, lengths: list[int]) -> Tensor:
    """Each sequence [T, N, ·] backward in its own length; padding stays."""
    rows = [torch.cat([x[:n, k].flip(0), x[n:, k]]) for k, n in enumerate(lengths)]
    return torch.stack(rows, 1)


@pytest.mark.sampled
@pytest.mark.parametrize("cut", [1, 3, 4])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("resets", [False, True])
def test_splitting_a_sequence_changes_nothing(
    subject: Subject, cut: int, layers: int, resets: bool
) -> None:
    layer = subject.layer(num_layers=layers)
    x, hx, reset_state = tokens(5, 3, 3), states(layer, 3), states(layer, 1, seed=9)
    cuts = torch.zeros(5, 3, dtype=torch.bool)
    cuts[[0, cut, cut, 2], [0, 1, 2, 2]] = resets
    options = {"reset_state": pack(reset_state)} if resets else {}
    leaves = [x, *hx, *(reset_state if resets else ()), *layer.parameters()]
    unsplit = run(layer, x, pack(hx), resets=cuts, **options)
    head = run(layer, x[:cut], pack(hx), resets=cuts[:cut], **options)
    tail = run(layer, x[cut:], pack(head[1:]), resets=cuts[cut:], **options)
    parts = [torch.cat([head[0], tail[0]]), *tail[1:]]
    close_all(parts, unsplit, "output")
    close_all(gradients(parts, leaves), gradients(unsplit, leaves), "gradient")


@pytest.mark.sampled
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize("poison", [float("nan"), 1e30, float("inf")])
def test_padding_never_matters(subject: Subject, options: dict[str, Any], poison: float) -> None:
    layer = subject.layer(**options)
    T, lengths = 5, [4, 0, 5, 1]
    padding = torch.arange(T)[:, None] >= torch.tensor(lengths)
    x = tokens(T, 4, 3).detach().masked_fill(padding[..., None], poison).requires_grad_()
    hx = states(layer, 4)
    output, *final = run(layer, user(layer, x), pack(hx), lengths=lengths)
    output = user(layer, output)
    assert (output[padding] == 0).all()
    output_gradients = random_like([output, *final])
    output_gradients[0][padding] = poison
    leaves = [x, *hx, *layer.parameters()]
    actual = gradients([output, *final], leaves, output_gradients)
    assert (actual[0][padding] == 0).all()

    expected = [torch.zeros_like(leaf) for leaf in leaves]
    for n, length in enumerate(lengths):
        rows = [state[:, n : n + 1] for state in hx]
        single = list(rows)
        parts = single
        if length:
            part = x[:length, n : n + 1]
            parts = list(run(layer, user(layer, part), pack(rows)))
            parts[0] = user(layer, parts[0])
            close(output[:length, n : n + 1], parts[0], "output")
            single = parts[1:]
        close_all([state[:, n : n + 1] for state in final], single, "output")
        starts = [g[:, n : n + 1] for g in output_gradients]
        starts = [starts[0][:length], *starts[1:]] if length else starts[1:]
        for total, share in zip(expected, gradients(parts, leaves, starts), strict=True):
            total += share
    close_all(actual, expected, "gradient")


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        torch.tensor,
        lambda n: torch.tensor(n, dtype=torch.int32),
        lambda n: torch.tensor(n, dtype=torch.int16),
        lambda n: torch.tensor(n, dtype=torch.uint8),
        lambda n: torch.tensor(n + n)[::2] * 0 + torch.tensor(n),
        np.array,
        lambda n: np.array(n, dtype=np.int32),
        lambda n: [np.int64(k) for k in n],
        lambda n: [torch.tensor(k) for k in n],
    ],
)
def test_lengths_may_be_any_integers(make: Callable[[list[int]], Any]) -> None:
    layer, x, lengths = nn.GRU(3, 4), torch.randn(5, 4, 3), [2, 5, 0, 3]
    for actual, expected in zip(
        run(layer, x, lengths=make(lengths)),
        run(layer, x, lengths=torch.tensor(lengths)),
        strict=True,
    ):
        assert_equal(actual, expected)


def test_one_length_for_an_unbatched_sequence(subject: Subject) -> None:
    layer, x = subject.layer(bidirectional=True), tokens(5, 3)
    expected = run(layer, x[:3])
    for lengths in ([3], torch.tensor(3), torch.tensor([3]), 3):
        output, *final = run(layer, x, lengths=lengths)
        close(output[:3], expected[0], "output")
        assert (output[3:] == 0).all()
        close_all(final, expected[1:], "output")


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("options", STACKS)
def test_rows_of_length_zero_end_as_they_began(subject: Subject, options: dict[str, Any]) -> None:
    layer = subject.layer(**options)
    hx = states(layer, 3)
    x = torch.full((3, 4, 3), float("nan"), dtype=torch.float64).requires_grad_()
    x_user = x if layer.batch_first else x.transpose(0, 1)
    parts = run(layer, x_user, pack(hx), lengths=[0, 0, 0])
    assert (parts[0] == 0).all()
    for state, final in zip(hx, parts[1:], strict=True):
        assert_equal(final, state)
    leaves = [x, *hx, *layer.parameters()]
    output_gradients = random_like(parts)
    expected = [torch.zeros_like(leaf) for leaf in leaves]
    expected[1 : 1 + len(hx)] = output_gradients[1:]
    close_all(gradients(parts, leaves, output_gradients), expected, "gradient")
    copies = [state.detach().clone() for state in hx]
    for final, state, value in zip(parts[1:], hx, copies, strict=True):
        final.detach().fill_(7)
        assert_equal(state.detach(), value)
    finals = run(layer, x_user, lengths=[0, 0, 0])[1:]
    assert all((final == 0).all() for final in finals)


@pytest.mark.parametrize("options", STACKS)
def test_lengths_that_are_all_full_are_none(subject: Subject, options: dict[str, Any]) -> None:
    layer, x = subject.layer(**options), tokens(4, 4, 3)
    for actual, expected in zip(run(layer, x, lengths=[4] * 4), run(layer, x), strict=True):
        assert_equal(actual, expected)


@pytest.mark.parametrize("options", STACKS)
def test_permuting_the_batch_permutes_the_output(subject: Subject, options: dict[str, Any]) -> None:
    layer = subject.layer(**options)
    x, hx, order = tokens(5, 4, 3), states(layer, 4), torch.tensor([2, 0, 3, 1])
    lengths, cuts = torch.tensor([3, 5, 1, 5]), torch.arange(20).reshape(5, 4) % 3 == 0

    def outcome(rows: Tensor) -> tuple[Tensor, ...]:
        output, *final = run(
            layer,
            user(layer, x[:, rows]),
            pack([state[:, rows] for state in hx]),
            lengths=lengths[rows],
            resets=user(layer, cuts[:, rows]),
        )
        return user(layer, output), *final

    straight, permuted = outcome(torch.arange(4)), outcome(order)
    close_all(permuted, [part[:, order] for part in straight], "output")
    leaves, output_gradients = [x, *hx, *layer.parameters()], random_like(straight)
    moved = [gradient[:, order] for gradient in output_gradients]
    close_all(
        gradients(permuted, leaves, moved),
        gradients(straight, leaves, output_gradients),
        "gradient",
    )


@pytest.mark.sampled
@pytest.mark.parametrize("lengths", [None, [5, 2, 0, 3]])
@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_the_reverse_direction_is_the_reversed_sequence(
    subject: Subject, lengths: list[int] | None, merge: str
) -> None:
    bidirectional = subject.layer(bidirectional=True, merge=merge)
    x, hx = tokens(5, 4, 3), states(bidirectional, 4)
    single, second = subject.layer(), subject.layer()
    named = bidirectional.state_dict()
    single.load_state_dict({name: named[name] for name in single.state_dict()})
    second.load_state_dict({name: named[name + "_reverse"] for name in second.state_dict()})
    output, *final = run(bidirectional, x, pack(hx), lengths=lengths)
    ahead, *end = run(single, x, pack([state[:1] for state in hx]), lengths=lengths)
    true = [5] * 4 if lengths is None else lengths
    back, *start = run(second, reverse(x, true), pack([state[1:] for state in hx]), lengths=lengths)
    back = reverse(back, true)
    expected = torch.cat([ahead, back], -1) if merge == "concat" else ahead + back
    close(output, expected, "output")
    close_all(final, [torch.cat(pair) for pair in zip(end, start, strict=True)], "output")
    actual = gradients([output], [x, *hx, *bidirectional.parameters()])
    reference_grads = gradients(
        [expected], [x, *hx, *single.parameters(), *second.parameters()], random_like([output])
    )
    close_all(actual, reference_grads, "gradient")


def test_two_summed_layers_are_layers_by_hand(subject: Subject) -> None:
    stack = subject.layer(num_layers=2, bidirectional=True, merge="sum")
    x, hx = tokens(4, 3, 3), states(stack, 3)
    width = stack.spec.output_size
    below = subject.layer(bidirectional=True)
    above = subject.layer(width, bidirectional=True)
    named = stack.state_dict()
    below.load_state_dict({name: named[name] for name in below.state_dict()})
    above.load_state_dict({name: named[name.replace("l0", "l1")] for name in above.state_dict()})
    head, *low = run(below, x, pack([state[:2] for state in hx]))
    second, *high = run(above, head[..., :width] + head[..., width:], pack([s[2:] for s in hx]))
    output, *final = run(stack, x, pack(hx))
    assert output.shape == (4, 3, width)
    close(output, second[..., :width] + second[..., width:], "output")
    close_all(final, [torch.cat(pair) for pair in zip(low, high, strict=True)], "output")


@pytest.mark.sampled
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_a_packed_sequence_is_lengths(
    subject: Subject, options: dict[str, Any], enforce_sorted: bool
) -> None:
    layer = subject.layer(**options)
    x, hx, lengths = tokens(5, 4, 3), states(layer, 4), [2, 5, 3, 3]
    if enforce_sorted:
        lengths.sort(reverse=True)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    output, final = layer(packed, pack(hx))
    assert isinstance(output, PackedSequence)
    padded = torch.nn.utils.rnn.pad_packed_sequence(output, total_length=5)[0]
    expected = run(layer, user(layer, x), pack(hx), lengths=lengths)
    expected = (user(layer, expected[0]), *expected[1:])
    actual = [padded, *unpack(final)]
    close_all(actual, expected, "output")
    leaves = [x, *hx, *layer.parameters()]
    close_all(gradients(actual, leaves), gradients(expected, leaves), "gradient")


@pytest.mark.sampled
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("form", ["batched", "unbatched", "packed", "lengths", "resets"])
@pytest.mark.parametrize("layers", [1, 2])
def test_no_output_aliases_another_or_an_input(subject: Subject, form: str, layers: int) -> None:
    layer = subject.layer(num_layers=layers)
    batch = [] if form == "unbatched" else [2]
    x, hx = tokens(1, *batch, 3).detach(), [s.detach() for s in states(layer, *batch)]
    options: dict[str, Any] = {"lengths": [0, 1]} if form == "lengths" else {}
    if form == "resets":
        options["resets"] = torch.tensor([[True, False]])
    layer_input: Any = pack_padded_sequence(x, [1, 1]) if form == "packed" else x
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            output, final = layer(layer_input, pack(hx), **options)
        parts = [getattr(output, "data", output), *unpack(final), x, *hx]
        copies = [part.detach().clone() for part in parts]
        with torch.no_grad():
            for k, part in enumerate(parts):
                part.fill_(7)
                for second, value in enumerate(copies):
                    if second != k:
                        assert_equal(parts[second].detach(), value)
                part.copy_(copies[k])


@pytest.mark.parametrize("options", STACKS)
def test_equal_seeds_give_equal_bits(subject: Subject, options: dict[str, Any]) -> None:
    def outcome() -> list[Tensor]:
        layer = subject.layer(dropout=0.4 if options.get("num_layers", 1) > 1 else 0.0, **options)
        x, hx = tokens(4, 4, 3), states(layer, 4)
        parts = run(layer, x, pack(hx), lengths=[4, 1, 3, 4])
        return [*parts, *gradients(parts, [x, *hx, *layer.parameters()])]

    for result, second in zip(outcome(), outcome(), strict=True):
        assert_equal(result, second)


def _by_data(weight: Tensor) -> None:
    weight.data.mul_(0.5)


def _by_numpy(weight: Tensor) -> None:
    weight.detach().numpy()[...] *= 0.5


def _by_optimizer(weight: Tensor) -> None:
    weight.grad = weight.detach() * 0.5
    torch.optim.SGD([weight], lr=1.0).step()


def _by_swap(weight: Tensor) -> None:
    weight.data = weight.data * 0.5


@pytest.mark.sampled
@pytest.mark.parametrize("write", [_by_data, _by_numpy, _by_optimizer, _by_swap])
def test_the_next_call_sees_changed_weights(
    subject: Subject, write: Callable[[Tensor], None]
) -> None:
    layer, fresh, x = subject.layer(num_layers=2), subject.layer(num_layers=2), tokens(3, 2, 3)
    old_output = layer(x)[0]
    for weight in layer.parameters():
        write(weight)
    halves = {name: value * 0.5 for name, value in fresh.state_dict().items()}
    fresh.load_state_dict(halves)
    assert_equal(layer(x)[0], fresh(x)[0])
    assert not torch.equal(layer(x)[0], old_output)
