"""Layers that are also instances of torch's classes: they run as ours, and keep nothing stale."""

import copy
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.subjects import gradients, tokens, unpack
from tests.support.tolerances import assert_equal, close
from unrolled import engines, nn
from unrolled.nn import _torch_subclasses as torch_subclasses

T, N, I, H = 5, 3, 3, 4  # noqa: E741
Make = Callable[..., torch.nn.Module]
LAYERS: dict[str, tuple[type, Make]] = {
    "rnn": (nn.RNN, partial(torch.nn.RNN, nonlinearity="relu", num_layers=2)),
    "lstm": (nn.LSTM, partial(torch.nn.LSTM, bidirectional=True, proj_size=2)),
    "gru": (nn.GRU, partial(torch.nn.GRU, bias=False, batch_first=True)),
}
CELLS: dict[str, tuple[type, Make]] = {
    "rnn cell": (nn.RNNCell, partial(torch.nn.RNNCell, nonlinearity="relu")),
    "lstm cell": (nn.LSTMCell, torch.nn.LSTMCell),
    "gru cell": (nn.GRUCell, partial(torch.nn.GRUCell, bias=False)),
}
PAIRS = LAYERS | CELLS
SUBCLASSES = (
    torch_subclasses.RNN,
    torch_subclasses.LSTM,
    torch_subclasses.GRU,
    torch_subclasses.RNNCell,
    torch_subclasses.LSTMCell,
    torch_subclasses.GRUCell,
)


def pair(class_name: str) -> tuple[Any, Any, Tensor]:
    """A layer of torch's, a copy of it made both, and an input."""
    theirs = PAIRS[class_name][1](I, H, dtype=torch.float64)
    mine = nn.convert(copy.deepcopy(theirs), subclass=True).model
    return theirs, mine, tokens(*((N, I) if class_name in CELLS else (T, N, I)))


def parts(results: Any) -> tuple[Tensor, ...]:
    """All tensors that a layer or a cell returns."""
    if isinstance(results, tuple) and not isinstance(results[1], Tensor):
        return results[0], *results[1]
    return unpack(results)


def agree(mine: Any, theirs: Any, x: Tensor) -> None:
    """Outputs, states and all gradients."""
    actual, expected = parts(mine(x)), parts(theirs(x))
    for a, b in zip(actual, expected, strict=True):
        close(a, b, "output")
    leaves = ([x, *layer.parameters()] for layer in (mine, theirs))
    for a, b in zip(*map(gradients, (actual, expected), leaves), strict=True):
        close(a, b, "gradient")


@pytest.mark.parametrize("class_name", PAIRS)
def test_it_is_both_and_runs_as_ours(class_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine, x = pair(class_name)
    assert isinstance(mine, PAIRS[class_name][0])
    assert isinstance(mine, type(theirs))
    assert isinstance(mine, torch.nn.RNNCellBase if class_name in CELLS else torch.nn.RNNBase)
    with engines.record() as ran:
        agree(mine, theirs, x)
    assert set(ran) == {"native"}

    def general(*_: Any) -> None:
        raise AssertionError("the general path")

    # The fast path, which is not recorded.
    monkeypatch.setattr(PAIRS[class_name][0], "_normalize", general)
    agree(mine, theirs, x)


@pytest.mark.parametrize("class_name", LAYERS)
def test_what_models_touch_is_there(class_name: str) -> None:
    theirs, mine, x = pair(class_name)
    assert repr(mine) == f"unrolled.nn.{theirs!r}"
    mine.flatten_parameters()
    for name in ("mode", "_all_weights", "_flat_weights_names", *torch.nn.RNNBase.__constants__):
        assert getattr(mine, name) == getattr(theirs, name), name
    flat = [p for row in mine.all_weights for p in row]
    for weights in (mine._flat_weights, flat):
        assert [id(p) for p in weights] == [id(getattr(mine, n)) for n in mine._flat_weights_names]
    hidden = tuple(torch.zeros(h.shape) for h in unpack(theirs(x)[1]))
    hidden = hidden if class_name == "lstm" else hidden[0]
    mine.check_forward_args(x, hidden, None)
    assert mine.permute_hidden(hidden, None) is hidden
    with pytest.raises(RuntimeError, match=r"input.size\(-1\) must be equal to input_size"):
        mine.check_forward_args(x[..., 1:], hidden, None)
    # torch's own forward finds all that it reads.
    assert_equal(type(theirs).forward(mine, x)[0], theirs(x)[0])


@pytest.mark.parametrize("cls", SUBCLASSES, ids=lambda cls: cls.__name__)
def test_nothing_that_torch_changes_of_a_module_comes_through(cls: type) -> None:
    torchs = [c for c in cls.__mro__ if c.__module__ == "torch.nn.modules.rnn"]
    changed = [(c, name) for c in torchs for name in vars(c) if callable(vars(c)[name])]
    changed = [(c, name) for c, name in changed if hasattr(torch.nn.Module, name)]
    assert {"__init__", "forward"} <= {name for _, name in changed}
    for c, name in changed:
        assert getattr(cls, name) is not vars(c)[name], f"{name} is {c.__name__}'s"


@pytest.mark.parametrize("class_name", LAYERS)
def test_no_list_of_weights_goes_stale(class_name: str) -> None:
    theirs, mine, x = pair(class_name)

    def current() -> None:
        assert "_flat_weights" not in vars(mine)
        assert all(a is b for a, b in zip(mine._flat_weights, mine.parameters(), strict=True))
        theirs.load_state_dict(mine.state_dict())
        close(mine(x)[0], theirs(x.double())[0], "output")

    mine.weight_hh_l0 = torch.nn.Parameter(mine.weight_hh_l0.detach() * 2)
    current()
    mine.load_state_dict({k: v / 3 for k, v in mine.state_dict().items()}, assign=True)
    current()
    mine.to(torch.float32)
    assert {p.dtype for p in mine._flat_weights} == {torch.float32}
    x = x.detach().float()
    current()
    assert "_flat_weights" not in vars(mine._replicate_for_data_parallel())
    arguments = {name: torch.zeros_like(p) for name, p in mine.named_parameters()}
    assert not torch.func.functional_call(mine, arguments, (x,))[0].any()
    del mine.weight_hh_l0
    assert mine._flat_weights[1] is None


@pytest.mark.parametrize("class_name", PAIRS)
def test_copies_files_and_state_dicts(class_name: str) -> None:
    theirs, mine, x = pair(class_name)
    file = io.BytesIO()
    torch.save(mine, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for duplicate in (copy.deepcopy(mine), pickle.loads(pickle.dumps(copy.copy(mine))), loaded):
        assert type(duplicate) is type(mine)
        assert not {id(p) for p in duplicate.parameters()} & {id(p) for p in mine.parameters()}
        agree(duplicate, theirs, x)
    options = getattr(PAIRS[class_name][1], "keywords", {})
    fresh = type(mine)(I, H, **options, dtype=torch.float64)
    fresh.load_state_dict(theirs.state_dict())
    agree(fresh, theirs, x)
    loaded_again = PAIRS[class_name][1](I, H, dtype=torch.float64)
    loaded_again.load_state_dict(mine.state_dict())
    agree(mine, loaded_again, x)


@pytest.mark.parametrize("class_name", PAIRS)
def test_from_each_class_to_each(class_name: str) -> None:
    theirs, mine, x = pair(class_name)
    classes = {"torch": type(theirs), "ours": PAIRS[class_name][0], "both": type(mine)}
    directions: dict[str, dict[str, Any]] = {"torch": {"to": "torch"}, "ours": {}}
    directions["both"] = {"subclass": True}
    old_ids = [id(p) for p in theirs.parameters()]
    path = ("ours", "both", "both", "ours", "ours", "torch", "torch", "both", "torch", "ours")
    model, actual = torch.nn.Sequential(theirs), []
    handle = theirs.register_forward_hook(lambda *_: actual.append("hook"))
    expected = parts(theirs(x))
    for goal in path:
        layer, cls = model[0], type(model[0])
        converted = nn.convert(model, **directions[goal])
        assert converted.replaced == (() if cls is classes[goal] else ("0",))
        assert converted.skipped == {}
        assert type(model[0]) is classes[goal]
        fresh_dynamo = cls is not classes[goal] and classes["torch"] in (cls, classes[goal])
        assert (model[0] is not layer) == fresh_dynamo
        assert [id(p) for p in model.parameters()] == old_ids
        for a, b in zip(parts(model(x)), expected, strict=True):
            close(a, b, "output")
    assert len(actual) == 1 + len(path)
    handle.remove()
    model(x)
    assert len(actual) == 1 + len(path)


def test_what_torch_cannot_say_stays_ours() -> None:
    model = torch.nn.Sequential(
        nn.LSTM(I, H, bidirectional=True, merge="sum"), nn.RNN(H, H, nonlinearity=torch.sin)
    ).double()
    x = tokens(T, N, I)
    expected = model[0](x)[0]
    assert nn.convert(model, subclass=True).replaced == ("0", "1")
    assert isinstance(model[0], torch.nn.LSTM)
    assert isinstance(model[1], torch.nn.RNN)
    assert_equal(model[0](x)[0], expected)
    assert model[1].nonlinearity is torch.sin
    assert nn.convert(model, to="torch").skipped == {
        "0": "merge='sum' is not torch's",
        "1": "its nonlinearity is a function",
    }


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Dynamo without graphs of earlier tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class PlainModule(torch.nn.Module):
    """Code that has nothing to do with recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(I, I, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


class Graphs:
    """A backend that counts graphs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.count += 1
        return graph.forward


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("class_name", LAYERS)
def test_dynamo_breaks_at_layers_that_are_torchs(class_name: str) -> None:
    _, mine, x = pair(class_name)
    model = torch.nn.Sequential(PlainModule(), mine)
    expected = parts(model(x))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Attempted to wrap RNN, GRU, or LSTM"):
        torch.compile(model, fullgraph=True, backend="eager")(x)
    torch._dynamo.reset()
    # With a break it runs: what stands before it is a graph, and nothing within it is.
    graphs = Graphs()
    actual = parts(torch.compile(model, backend=graphs)(x))
    assert graphs.count == 1
    leaves = [x, *model.parameters()]
    for a, b in zip(gradients(actual, leaves), gradients(expected, leaves), strict=True):
        close(a, b, "gradient")
    torch._dynamo.reset()
    nn.convert(model)
    for a, b in zip(
        parts(torch.compile(model, fullgraph=True, backend="eager")(x)), expected, strict=True
    ):
        close(a, b, "output")


def test_dynamo_is_not_imported_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _, mine, x = pair("gru")
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    failure = "torch.compiler.disable imports it"
    monkeypatch.setattr(torch_subclasses, "_disabled", lambda: pytest.fail(failure))
    mine(x)


@pytest.mark.usefixtures("fresh_dynamo")
def test_dynamo_takes_them_where_it_takes_torchs() -> None:
    _, mine, x = pair("lstm")
    with torch._dynamo.config.patch(allow_rnn=True):
        actual = torch.compile(mine, fullgraph=True, backend="eager")(x)
    close(actual[0], mine(x)[0], "output")
    _, cell, x = pair("lstm cell")
    actual = torch.compile(cell, fullgraph=True, backend="eager")(x)
    close(actual[0], cell(x)[0], "output")
    _, mine, x = pair("gru")
    program = torch.export.export(mine, (x.detach(),), strict=True)
    close(program.module()(x)[0], mine(x)[0], "output")
