"""convert: the same parameters, names, hooks and numbers, in both directions."""

import copy
from abc import ABC
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.tolerances import close
from unrolled import nn


class Model(torch.nn.Module):
    """Layers and cells of all kinds, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(3, 4, nonlinearity="relu", bias=False)
        self.deep = torch.nn.ModuleList(
            [torch.nn.LSTM(4, 6, 2, dropout=0.5, bidirectional=True, proj_size=2)]
        )
        self.gru = torch.nn.GRU(4, 3, batch_first=True)
        self.same_gru = self.gru
        self.steps = torch.nn.ModuleDict(
            {"lstm": torch.nn.LSTMCell(3, 3), "gru": torch.nn.GRUCell(3, 3, bias=False)}
        )
        self.head = torch.nn.RNNCell(3, 2, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep[0](self.rnn(x)[0])[0]
        x = self.same_gru(self.gru(x)[0].repeat(1, 1, 2)[..., :4])[0][:, -1]
        h = self.steps["gru"](self.steps["lstm"](x)[0])
        actual: Tensor = self.head(h)
        return actual


NAMES = ("rnn", "deep.0", "gru", "steps.lstm", "steps.gru", "head")


def make_pair() -> tuple[Model, Tensor]:
    model = Model().double().eval()
    return model, torch.randn(5, 2, 3, dtype=torch.float64)


def test_numbers_and_parameters_stay() -> None:
    model, x = make_pair()
    expected, old_parameters = model(x), dict(model.named_parameters())
    model.gru.weight_hh_l0.requires_grad_(False)
    draws = torch.random.get_rng_state()
    converted = nn.convert(model)
    assert torch.equal(draws, torch.random.get_rng_state())
    assert converted.model is model
    assert converted.replaced == NAMES
    assert converted.skipped == {}
    assert isinstance(model.gru, nn.GRU)
    assert model.same_gru is model.gru
    assert not any(isinstance(m, torch.nn.RNNBase | torch.nn.RNNCellBase) for m in model.modules())
    new_parameters = dict(model.named_parameters())
    assert list(new_parameters) == list(old_parameters)
    assert all(new_parameters[name] is old_parameters[name] for name in old_parameters)
    assert not model.gru.weight_hh_l0.requires_grad
    assert not model.gru.training
    close(model(x), expected, "output")


def test_an_optimizer_continues_after_conversion() -> None:
    model, x = make_pair()
    unconverted = copy.deepcopy(model)
    moves = [torch.optim.Adam(m.parameters(), lr=0.1) for m in (model, unconverted)]
    for k in range(4):
        for m, move in zip((model, unconverted), moves, strict=True):
            move.zero_grad()
            m(x).square().sum().backward()
            move.step()
        if k == 1:
            nn.convert(model)
    for mine, expected in zip(model.parameters(), unconverted.parameters(), strict=True):
        assert (mine - expected).abs().max().item() < 1e-9


def test_there_and_back() -> None:
    model, x = make_pair()
    expected, old_parameters = model(x), dict(model.named_parameters())
    nn.convert(model)
    converted = nn.convert(model, to="torch")
    assert converted.replaced == NAMES
    assert type(model.gru) is torch.nn.GRU
    assert all(p is old_parameters[name] for name, p in model.named_parameters())
    assert torch.equal(model(x), expected)
    model.gru.to(torch.float32)
    assert model.gru(torch.randn(1, 2, 4))[0].dtype == torch.float32


def test_hooks_stay_and_can_be_removed() -> None:
    model, x = make_pair()
    recorded: list[str] = []
    handles = [
        model.gru.register_forward_hook(lambda *_: recorded.append("forward")),
        model.gru.register_forward_pre_hook(
            lambda *_, **__: recorded.append("before"), with_kwargs=True
        ),
        model.gru.register_state_dict_post_hook(lambda *_: recorded.append("saved")),
    ]
    nn.convert(model)
    model(x)
    model.state_dict()
    assert recorded == ["before", "forward"] * 2 + ["saved"] * 2
    for handle in handles:
        handle.remove()
    model(x)
    assert len(recorded) == 6


def test_a_layer_alone_is_converted() -> None:
    layer = torch.nn.LSTM(3, 4)
    converted = nn.convert(layer)
    assert isinstance(converted.model, nn.LSTM)
    assert converted.replaced == ("",)
    assert converted.model.weight_ih_l0 is layer.weight_ih_l0
    assert str(converted) == "replaced the model itself"


class Doubled(torch.nn.GRU):
    def forward(self, *args: Any) -> Any:  # type: ignore[override]
        return super().forward(*args)


class Abstract(ABC):  # noqa: B024
    """Nothing of its own, but what every abstract class has."""


class Mixed(Abstract, Doubled):
    pass


class Renamed(torch.nn.GRU):
    """Only a name."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)


def test_what_is_left_and_why() -> None:
    model = torch.nn.ModuleDict(
        {
            "doubled": Doubled(2, 3),
            "mixed": Mixed(2, 3),
            "renamed": Renamed(2, 3),
            "linear": torch.nn.Linear(2, 3),
        }
    )
    report = nn.convert(model)
    assert report.replaced == ("renamed",)
    assert set(report.skipped) == {"doubled", "mixed"}
    assert report.skipped["mixed"] == "Mixed is a subclass with members of its own: forward"
    assert "members of its own: forward" in report.skipped["doubled"]
    assert "skipped doubled: Doubled is a subclass" in str(report)
    back = nn.convert(
        torch.nn.Sequential(
            nn.GRU(2, 3, merge="sum", bidirectional=True), nn.RNN(2, 3, 1, torch.sin)
        ),
        to="torch",
    )
    assert back.skipped == {
        "0": "merge='sum' is not torch's",
        "1": "its nonlinearity is a function",
    }


def test_what_was_done_to_one_layer_alone() -> None:
    model = torch.nn.ModuleList([torch.nn.GRU(2, 3), torch.nn.GRU(2, 3), torch.nn.GRUCell(2, 3)])
    x = torch.randn(4, 1, 2)
    model[0].note = note = ["kept"]
    model[1].forward = lambda x: x
    model[2].compile(backend="eager")
    converted = nn.convert(model)
    assert converted.replaced == ("0", "2")
    assert converted.skipped == {"1": "it has members of its own: forward"}
    assert model[0].note is note
    assert model[1](x) is x
    assert model[2]._compiled_call_impl is None  # it would call the old cell
    # Between our classes the object stays, and all that is on it.
    model[0].forward = lambda x: x
    assert nn.convert(model, subclass=True).replaced == ("0", "2")
    assert model[0](x) is x
    assert nn.convert(model, to="torch").skipped == {"0": "it has members of its own: forward"}


def test_a_warning_is_given_once() -> None:
    with pytest.warns(UserWarning, match="dropout=0.5"):
        layer = torch.nn.GRU(2, 3, dropout=0.5)
    assert nn.convert(layer).model.dropout == 0.5


def test_derived_classes_are_left_on_every_way() -> None:
    class Ours(nn.GRU):
        def forward(self, *args: Any, **options: Any) -> Any:
            return super().forward(*args, **options)

    model = torch.nn.Sequential(Ours(2, 3), Doubled(2, 3))
    ours = {"0": "Ours is a subclass with members of its own: forward"}
    theirs = {"1": "Doubled is a subclass with members of its own: forward"}
    assert nn.convert(model).skipped == theirs
    assert nn.convert(model, subclass=True).skipped == ours | theirs
    assert nn.convert(model, to="torch").skipped == ours
    assert [type(layer) for layer in model] == [Ours, Doubled]


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got list"):
        nn.convert([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="to must be 'unrolled' or 'torch', got 'jax'"):
        nn.convert(torch.nn.Linear(1, 1), to="jax")
    layer = torch.nn.GRU(1, 1)
    with pytest.raises(TypeError, match="subclass must be a bool, got 1"):
        nn.convert(layer, subclass=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="subclass must be False with to='torch'"):
        nn.convert(layer, to="torch", subclass=True)
