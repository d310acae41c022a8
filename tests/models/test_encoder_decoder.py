"""Encoder and decoder against torch's modules and a loop over the steps, one pair at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from tests.support import wiring
from tests.support.subjects import gradients, random_like, unpack
from tests.support.tolerances import assert_equal, close
from unrolled.models import CellNameError, DotAttention, EncoderDecoder, Memory

S, V, H = 6, 5, 4
SOURCES, TARGETS = torch.tensor([3, 7, 1, 5]), torch.tensor([4, 1, 6, 2])
T, U, N = 7, 6, len(SOURCES)

CLASSIC: list[dict[str, Any]] = [
    {},
    {"attention": False},
    {"cell": "LSTM", "num_layers": 2},
    {"cell": "LSTM", "num_layers": 2, "attention": False, "bidirectional": True},
    {"bidirectional": True, "num_layers": 3},
    {"cell": "RNN", "bidirectional": True},
]
OTHER_CELLS: list[dict[str, Any]] = [
    {"cell": "CoRNN", "num_layers": 2, "bidirectional": True},
    {"cell": "SLSTM", "bidirectional": True},
    {"cell": "LayerNormLSTM", "num_layers": 2, "attention": False},
    {"cell": wiring.PEEPHOLE, "bidirectional": True},
]


def new_model(options: dict[str, Any]) -> EncoderDecoder:
    return wiring.drawn(EncoderDecoder(S, V, hidden_size=H, embedding_size=3, **options))


def pairs() -> tuple[Tensor, Tensor]:
    return torch.randint(S, (T, N)), torch.randint(V, (U, N))


@pytest.mark.parametrize("options", CLASSIC, ids=str)
def test_it_is_torchs_modules_pair_by_pair(options: dict[str, Any]) -> None:
    """Logits and gradients, whatever lies behind sources and targets."""
    model, (source, target) = new_model(options), pairs()
    logits = model(source, target, SOURCES, TARGETS)
    mine = [logits[: TARGETS[n], n] for n in range(N)]
    theirs = [
        wiring.translation(model, source[: SOURCES[n], n], target[: TARGETS[n], n])[0]
        for n in range(N)
    ]
    for a, b in zip(mine, theirs, strict=True):
        close(a, b, "output")
    leaves, start = list(model.parameters()), random_like(mine)
    for a, b in zip(*(gradients(side, leaves, start) for side in (mine, theirs)), strict=True):
        close(a, b, "gradient")
    # Without lengths all is of full length.
    actual = model(source, target)
    for n in range(N):
        close(actual[:, n], wiring.translation(model, source[:, n], target[:, n])[0], "output")


@pytest.mark.parametrize("options", [*CLASSIC, *OTHER_CELLS], ids=str)
def test_teacher_forcing_is_a_decode_step_by_step(options: dict[str, Any]) -> None:
    model, (source, target) = new_model(options), pairs()
    complete = model(source, target, SOURCES)
    for n in range(N):
        memory, state = model.encode(source[: SOURCES[n], n : n + 1])
        for t in range(U):
            logits, state = model.decode(target[t : t + 1, n : n + 1], state, memory)
            close(logits[0, 0], complete[t, n], "output")


@pytest.mark.parametrize("options", [*CLASSIC, *OTHER_CELLS], ids=str)
def test_padding_never_matters(options: dict[str, Any]) -> None:
    model, (source, target) = new_model(options), pairs()
    sides = []
    for rubbish in (0, 4):
        for tokens, lengths in ((source, SOURCES), (target, TARGETS)):
            tokens[torch.arange(len(tokens))[:, None] >= lengths] = rubbish
        more = torch.full((2, N), rubbish)
        logits = model(source, target, SOURCES, TARGETS)
        longer = model(torch.cat([source, more]), torch.cat([target, more]), SOURCES, TARGETS)
        grown = gradients([logits], list(model.parameters()), random_like([logits]))
        sides.append([logits, longer, *grown])
    for a, b in zip(*sides, strict=True):
        assert a.isfinite().all()
        assert_equal(a, b)
    close(sides[0][1][:U], sides[0][0], "output")


@pytest.mark.parametrize("options", CLASSIC[:3], ids=str)
def test_a_source_without_a_token(options: dict[str, Any]) -> None:
    """There is nothing to look at: the context is zero, and no gradient is lost in NaN."""
    model, (source, target) = new_model(options), pairs()
    logits = model(source, target, torch.tensor([3, 0, 7, 0]))
    for n in (1, 3):
        close(logits[:, n], wiring.translation(model, source[:0, n], target[:, n])[0], "output")
    assert all(g.isfinite().all() for g in gradients([logits], list(model.parameters())))


# Attention


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}], ids=str)
def test_attention_looks_at_the_tokens_of_the_source(options: dict[str, Any]) -> None:
    model, (source, target) = new_model(options), pairs()
    memory, state = model.encode(source, SOURCES)
    outputs, _ = model.decoder(model.target(target), state)
    weights = model.attention.weights(outputs, memory)
    assert weights.shape == (N, U, T)
    close(weights.sum(-1), torch.ones(N, U, dtype=torch.float64), "output")
    for n, length in enumerate(SOURCES):
        assert not weights[n, :, length:].any()
        _, looks = wiring.translation(model, source[:length, n], target[:, n])
        close(weights[n, :, :length], looks, "output")


def test_attention_by_hand() -> None:
    attention = DotAttention(1)
    attention.combine.weight.data = torch.tensor([[2.0, 3.0]])
    attention.combine.bias.data = torch.tensor([0.25])
    outputs = torch.tensor([[[1.0]], [[-1.0]]])
    log = torch.tensor([3.0]).log().item()
    memory = Memory(torch.tensor([[[log]], [[0.0]], [[9.0]]]), torch.tensor([[1], [1], [0]]) > 0)
    expected = torch.tensor([[[0.75, 0.25, 0.0], [0.25, 0.75, 0.0]]])
    torch.testing.assert_close(attention.weights(outputs, memory), expected)
    inner = torch.tensor([2 * 0.75 * log + 3 + 0.25, 2 * 0.25 * log - 3 + 0.25])
    torch.testing.assert_close(attention(outputs, memory).flatten(), torch.tanh(inner))


def test_nan_behind_a_source_reaches_nothing() -> None:
    attention: DotAttention = wiring.drawn(DotAttention(H))
    inside = torch.arange(T)[:, None] < torch.tensor([3, T, 0])
    numbers = torch.randn(T, 3, H, dtype=torch.float64)
    outputs = torch.randn(U, 3, H, dtype=torch.float64, requires_grad=True)
    sides = []
    for rubbish in (torch.nan, 2.0):
        behind = numbers.masked_fill(~inside[..., None], rubbish).requires_grad_()
        actual = attention(outputs, Memory(behind, inside))
        leaves = [outputs, behind, *attention.parameters()]
        sides.append([actual, *gradients([actual], leaves, random_like([actual]))])
    for a, b in zip(*sides, strict=True):
        assert_equal(a, b)


def test_attention_adds_weights_and_changes_the_outputs() -> None:
    with_it, without = new_model({}), new_model({"attention": False})
    shared = without.state_dict()
    without.load_state_dict({name: with_it.state_dict()[name] for name in shared})
    assert set(with_it.state_dict()) - set(shared) == {
        "attention.combine.weight",
        "attention.combine.bias",
    }
    source, target = pairs()
    assert (with_it(source, target) - without(source, target)).abs().max() > 1e-2


# Gradients, dropout, arguments


@pytest.mark.parametrize(("cell", "attention"), [("GRU", True), ("LSTM", False), ("CoRNN", True)])
def test_gradients_are_those_of_finite_differences(cell: str, attention: bool) -> None:
    options: dict[str, Any] = {"hidden_size": 2, "embedding_size": 2, "bidirectional": True}
    model = wiring.drawn(EncoderDecoder(3, 3, cell=cell, attention=attention, **options))
    source, target = torch.randint(3, (3, 2)), torch.randint(3, (2, 2))
    names = [name for name, _ in model.named_parameters()]

    def says(*numbers: Tensor) -> Tensor:
        call = (source, target, torch.tensor([3, 2]), torch.tensor([1, 2]))
        return functional_call(model, dict(zip(names, numbers, strict=True)), call)

    numbers = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(says, numbers)


def test_dropout_is_in_training_only() -> None:
    model, (source, target) = new_model({"dropout": 0.5, "num_layers": 2}), pairs()
    close(
        model(source, target)[:, 0],
        wiring.translation(model, source[:, 0], target[:, 0])[0],
        "output",
    )
    model.train()
    assert not torch.equal(model(source, target), model(source, target))
    assert model.encoder.dropout == model.decoder.dropout == model.dropout.p == 0.5
    assert EncoderDecoder(S, V, dropout=0.5).encoder.dropout == 0.0


@pytest.mark.parametrize("options", [*CLASSIC, *OTHER_CELLS], ids=str)
def test_arguments_make_it_again(options: dict[str, Any]) -> None:
    model = new_model({"dropout": 0.1, **options})
    rebuilt = EncoderDecoder(**model.arguments).double().eval()
    rebuilt.load_state_dict(model.state_dict())
    assert (rebuilt.arguments, str(rebuilt)) == (model.arguments, str(model))
    source, target = pairs()
    assert_equal(rebuilt(source, target), model(source, target))


def test_states_of_both_directions_are_added() -> None:
    model, (source, _) = (
        new_model({"cell": "LSTM", "num_layers": 2, "bidirectional": True}),
        pairs(),
    )
    _, states = model.encode(source, SOURCES)
    _, parts = model.encoder(model.source(source), lengths=SOURCES)
    for state, part in zip(unpack(states), unpack(parts), strict=True):
        assert_equal(state, torch.stack([part[0] + part[1], part[2] + part[3]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_size": 0}, "EncoderDecoder: source_size must be at least 1, got 0"),
        ({"target_size": -2}, "EncoderDecoder: target_size must be at least 1, got -2"),
        ({"hidden_size": 0}, "EncoderDecoder: hidden_size must be at least 1, got 0"),
        ({"dropout": 1.5}, r"EncoderDecoder: dropout must be a probability in \[0, 1\), got 1.5"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(**({"source_size": S, "target_size": V} | options))
    with pytest.raises(CellNameError):
        EncoderDecoder(S, V, cell="none")
