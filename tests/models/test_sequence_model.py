"""The model of most tasks against torch's modules, one sequence at a time, and its laws."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support import wiring
from tests.support.subjects import gradients, pack, random_like, states, unpack
from tests.support.tolerances import assert_equal, close
from unrolled.models import LanguageModel, SequenceModel

V, O, H = 7, 3, 5  # noqa: E741
LENGTHS = torch.tensor([4, 0, 9, 1, 6])
T, N = 9, len(LENGTHS)

CASES: dict[str, dict[str, Any]] = {
    "gru": {},
    "lstm, one-hot, deep": {"cell": "LSTM", "input": "one-hot", "num_layers": 3},
    "rnn, numbers, both": {"cell": "rnn", "input": "numbers", "bidirectional": True},
    "lstm, learned, both, deep": {
        "cell": "LSTM",
        "initial": "learned",
        "bidirectional": True,
        "num_layers": 2,
    },
    "last": {"pooling": "last", "num_layers": 2},
    "last, both, learned": {
        "cell": "LSTM",
        "pooling": "last",
        "bidirectional": True,
        "num_layers": 2,
        "initial": "learned",
    },
    "mean": {"pooling": "mean", "input": "numbers", "initial": "learned"},
    "max": {"pooling": "max", "cell": "LSTM", "bidirectional": True},
    "max, numbers": {"pooling": "max", "cell": "RNN", "input": "numbers"},
    "attention": {"pooling": "attention", "input": "numbers", "num_layers": 2},
    "attention, both": {"pooling": "attention", "cell": "LSTM", "bidirectional": True},
}
PUBLISHED = ["CoRNN", "PeepholeLSTM", "SLSTM", "NBRC", wiring.PEEPHOLE]


def new_model(options: dict[str, Any]) -> SequenceModel:
    return wiring.drawn(SequenceModel(V, O, hidden_size=H, embedding_size=4, **options))


def positive(model: SequenceModel) -> None:
    """The sLSTM divides by its third state: of the states given to it that must be above 0."""
    for part in model.start.states[2:3]:
        part.data.abs_().add_(0.5)


def inputs(model: SequenceModel, *batch: int) -> Tensor:
    if model.arguments["input"] == "numbers":
        return torch.randn(*batch, V, dtype=torch.float64)
    return torch.randint(V, batch)


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest) -> SequenceModel:
    return new_model(CASES[request.param])


def test_it_equals_torch_modules_with_the_same_wiring(model: SequenceModel) -> None:
    x = inputs(model, T, N)
    actual, final = model(x)
    for n in range(N):
        expected, ends = wiring.sequence(model, x[:, n])
        close(actual[n] if model.pooling else actual[:, n], expected, "output")
        for a, b in zip(unpack(final), ends, strict=True):
            close(a[:, n : n + 1], b, "output")


def test_it_continues_from_a_given_state(model: SequenceModel) -> None:
    x, hx = inputs(model, T, N), states(model.recurrent, N)
    actual, final = model(x, pack(hx))
    for n in range(N):
        expected, ends = wiring.sequence(model, x[:, n], tuple(part[:, n : n + 1] for part in hx))
        close(actual[n] if model.pooling else actual[:, n], expected, "output")
        for a, b in zip(unpack(final), ends, strict=True):
            close(a[:, n : n + 1], b, "output")


@pytest.mark.parametrize("training", [False, True])
def test_padding_never_matters(model: SequenceModel, training: bool) -> None:
    """Values, states and all gradients are those of each sequence alone; one has no step."""
    model.train(training)  # without dropout, the same but for the way that it runs
    x = inputs(model, T, N)
    if x.is_floating_point():
        behind = torch.arange(T)[:, None] >= LENGTHS
        x = x.masked_fill(behind[..., None], torch.nan).requires_grad_()
    actual, final = model(x, lengths=LENGTHS)
    single = [wiring.sequence(model, x[:length, n]) for n, length in enumerate(LENGTHS)]
    if model.pooling:
        mine, theirs = [actual], [torch.stack([expected for expected, _ in single])]
    else:
        mine = [actual[:length, n] for n, length in enumerate(LENGTHS)]
        theirs = [expected for expected, _ in single]
    mine += unpack(final)
    theirs += [torch.cat(parts, 1) for parts in zip(*(ends for _, ends in single), strict=True)]
    for a, b in zip(mine, theirs, strict=True):
        close(a, b, "output")
    leaves = [*model.parameters(), *([x] if x.requires_grad else [])]
    start = random_like(mine)
    for a, b in zip(*(gradients(side, leaves, start) for side in (mine, theirs)), strict=True):
        assert a.isfinite().all()
        close(a, b, "gradient")


def test_what_lies_behind_is_never_seen(model: SequenceModel) -> None:
    x = inputs(model, T, N)
    changed = torch.where(
        (torch.arange(T)[:, None] < LENGTHS).view(T, N, *[1] * (x.dim() - 2)), x, 0
    )
    assert_equal(model(x, lengths=LENGTHS)[0], model(changed, lengths=LENGTHS)[0])


def test_of_a_sequence_without_a_step_the_head_sees_the_start() -> None:
    x, none = torch.randint(V, (T, 2)), torch.tensor([0, 5])
    for pooling in ("mean", "max", "attention"):
        model = new_model({"pooling": pooling, "initial": "learned"})
        close(model(x, lengths=none)[0][0], model.head.bias, "output")
    model = new_model(
        {"pooling": "last", "initial": "learned", "bidirectional": True, "num_layers": 2}
    )
    start = model.start.states[0]
    expected = model.head(torch.cat([start[2, 0], start[3, 0]]))
    close(model(x, lengths=none)[0][0], expected, "output")


@pytest.mark.parametrize("cell", ["GRU", "LSTM", *PUBLISHED])
def test_splitting_and_carrying_the_state_changes_nothing(cell: str) -> None:
    for pooling in (None, "last"):
        model = new_model({"cell": cell, "num_layers": 2, "initial": "learned", "pooling": pooling})
        positive(model)
        x, state, outputs = torch.randint(V, (T, 3)), None, []
        for part in x.split([1, 5, 3]):
            actual, state = model(part, state)
            outputs.append(actual)
        complete, final = model(x)
        close(actual if pooling else torch.cat(outputs), complete, "output")
        for a, b in zip(unpack(state), unpack(final), strict=True):
            close(a, b, "output")


def test_sequences_in_another_order_give_outputs_in_that_order(model: SequenceModel) -> None:
    x, order = inputs(model, T, N), torch.tensor([3, 0, 4, 2, 1])
    actual, _ = model(x, lengths=LENGTHS)
    shuffled, _ = model(x[:, order], lengths=LENGTHS[order])
    close(shuffled, actual[order] if model.pooling else actual[:, order], "output")


# The learned start


@pytest.mark.parametrize("cell", ["GRU", "LSTM", *PUBLISHED])
def test_a_learned_start_is_the_state_passed_by_hand(cell: str) -> None:
    model = new_model({"cell": cell, "initial": "learned", "num_layers": 2, "bidirectional": True})
    positive(model)
    x = torch.randint(V, (T, 3))
    passed = tuple(
        torch.cat([part] * 3, 1).detach().requires_grad_() for part in model.start.states
    )
    actual, by_hand = model(x, lengths=LENGTHS[:3])[0], model(x, pack(passed), LENGTHS[:3])[0]
    close(actual, by_hand, "output")
    start = random_like([actual])
    learned = gradients([actual], list(model.start.states), start)
    for a, b in zip(learned, gradients([by_hand], passed, start), strict=True):
        close(a, b.sum(1, keepdim=True), "gradient")
    assert learned[0].abs().min() > 0


def test_a_learned_start_is_zero_at_first() -> None:
    options: dict[str, Any] = {"hidden_size": H, "cell": "LSTM", "num_layers": 2}
    learned = SequenceModel(V, O, initial="learned", **options)
    zero = SequenceModel(V, O, **options)
    zero.load_state_dict(
        {k: v for k, v in learned.state_dict().items() if not k.startswith("start")}
    )
    x = torch.randint(V, (T, N))
    close(learned(x)[0], zero(x)[0], "output")
    assert [tuple(p.shape) for p in learned.start.parameters()] == [(2, 1, H)] * 2


# Dropout


def test_dropout_is_after_the_encoder_and_before_the_head_in_training_only() -> None:
    model = new_model({"dropout": 0.4, "pooling": "mean"})
    x = torch.randint(V, (T, N))
    assert_equal(model(x)[0], model(x)[0])
    close(model(x)[0][0], wiring.sequence(model, x[:, 0])[0], "output")
    model.train()
    torch.manual_seed(5)
    actual, _ = model(x)
    torch.manual_seed(5)
    hidden, _ = model.recurrent(F.dropout(model.encoder(x), 0.4))
    close(actual, model.head(F.dropout(hidden.mean(0), 0.4)), "output")


def test_dropout_is_between_the_layers_where_there_are_several() -> None:
    assert new_model({"dropout": 0.4}).recurrent.dropout == 0.0
    model = new_model({"dropout": 0.4, "num_layers": 2})
    assert model.recurrent.dropout == 0.4
    model.train()
    model.dropout.p = 0.0
    x = torch.randint(V, (T, N))
    assert not torch.equal(model(x)[0], model(x)[0])
    close(model.eval()(x)[0][:, 0], wiring.sequence(model, x[:, 0])[0], "output")


# Arguments


@pytest.mark.parametrize("name", CASES)
def test_arguments_make_the_model_again(name: str) -> None:
    model = SequenceModel(V, O, hidden_size=H, dropout=0.25, **CASES[name])
    rebuilt = SequenceModel(**model.arguments)
    assert rebuilt.arguments == model.arguments
    assert str(rebuilt) == str(model)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (model, rebuilt)]
    assert shapes[0] == shapes[1]


def test_arguments_make_a_language_model_again() -> None:
    options = {"cell": "LSTM", "input": "one-hot", "num_layers": 2, "initial": "learned"}
    model = LanguageModel(V, 6, dropout=0.1, **options)
    rebuilt = LanguageModel(**model.arguments)
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt.arguments == model.arguments
    x = torch.randint(V, (T, N))
    assert_equal(rebuilt.eval()(x)[0], model.eval()(x)[0])
    expected = wiring.sequence(wiring.drawn(model), x[:, 0])[0]
    close(model(x)[0][:, 0], expected, "output")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "SequenceModel: input_size must be at least 1, got 0"),
        ({"output_size": 0}, "SequenceModel: output_size must be at least 1, got 0"),
        ({"num_layers": -1}, "SequenceModel: num_layers must be at least 1, got -1"),
        ({"embedding_size": 0}, "SequenceModel: embedding_size must be at least 1, got 0"),
        (
            {"dropout": float("nan")},
            r"SequenceModel: dropout must be a probability in \[0, 1\), got nan",
        ),
        ({"dropout": -0.1}, r"SequenceModel: dropout must be a probability in \[0, 1\), got -0.1"),
        ({"input": ""}, "SequenceModel: input must be one of embedding, one-hot, numbers, got ''"),
        ({"initial": "None"}, "SequenceModel: initial must be one of zero, learned, got 'None'"),
        (
            {"pooling": "sum"},
            "Pooling: pooling must be one of last, mean, max, attention, got 'sum'",
        ),
        ({"pooling": ""}, "Pooling: pooling must be one of last, mean, max, attention, got ''"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceModel(**({"input_size": V, "output_size": O} | options))


@pytest.mark.parametrize("pooling", [None, "last", "mean", "max", "attention"])
def test_lengths_may_be_a_list(pooling: str | None) -> None:
    torch.manual_seed(0)
    model = SequenceModel(5, 3, hidden_size=4, pooling=pooling, bidirectional=True).eval()
    tokens, lengths = torch.randint(5, (6, 3)), [4, 6, 1]
    actual, _ = model(tokens, lengths=lengths)
    expected, _ = model(tokens, lengths=torch.tensor(lengths))
    assert torch.equal(actual, expected)
    complete, _ = model(tokens)
    assert not torch.equal(actual, complete)
