"""Constructor arguments of torch.nn's layers, which ours accept; attributes that are set later."""

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.subjects import tokens, unpack
from tests.support.tolerances import assert_equal, close
from unrolled import cells, nn
from unrolled.cells import tanh
from unrolled.nn import _torch_subclasses as torch_subclasses

LAYERS = ("RNN", "LSTM", "GRU")
STEPS = ("RNNCell", "LSTMCell", "GRUCell")
# A kind of layer ("*": each), positional and keyword arguments; torch.nn takes them all.
ACCEPTED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("*", (True, 4), {}),
    ("*", (3, 4, np.int64(2)), {}),
    ("*", (3, 4, torch.tensor(2)), {}),
    ("*", (3, 4, True), {}),
    ("*", (3, 4), {"num_layers": np.uint8(2), "dropout": np.float32(0.5)}),
    ("*", (3, 4, 2), {"dropout": 1}),
    ("*", (3, 4, 2), {"dropout": 0}),
    ("*", (3, 4, 2), {"dropout": np.int64(1)}),
    ("*", (3, 4, 2), {"dropout": Fraction(1, 2)}),
    ("*", (3, 4, 2), {"dropout": Decimal("0.25")}),
    ("*", (3, 4), {"bidirectional": 1}),
    ("*", (3, 4), {"bidirectional": np.True_}),
    ("*", (3, 4), {"bidirectional": None}),
    ("*", (3, 4), {"bidirectional": 0}),
    ("*", (3, 4), {"device": "cpu", "dtype": torch.float64}),
    ("*", (3, 4), {"device": torch.device("cpu")}),
    ("*", (3, 4), {"device": "meta"}),
    ("*", (3, 4), {"dtype": float}),
    ("*", (3, 4), {"dtype": torch.bfloat16}),
    ("*", (3, 4), {"dtype": torch.complex64}),
    ("*", (), {"hidden_size": 4, "input_size": 3}),
    ("RNN", (3, 4, 2, "relu", False, True, 0.5, True), {}),
    ("RNN", (3, 4, 1, "relu", True, False, 0.0, False, 0, "cpu", torch.float64), {}),
    ("GRU", (3, 4, 2, False, True, 0.5, True), {}),
    ("GRU", (3, 4, 1, True, False, 0.0, False, 0, "cpu", torch.float64), {}),
    ("LSTM", (3, 4, 2, False, True, 0.5, True, 2), {}),
    ("LSTM", (3, 4, 1, True, False, 0.0, False, 2, "cpu", torch.float64), {}),
    ("LSTM", (3, 4), {"proj_size": np.int32(2)}),
    ("LSTM", (3, 4), {"proj_size": torch.tensor(2)}),
    ("LSTM", (3, 4), {"proj_size": 0.0}),
    ("LSTM", (3, 4), {"proj_size": False}),
    ("cell", (np.int64(3), np.int32(4)), {}),
    ("cell", (torch.tensor(3), torch.tensor(4)), {}),
    ("cell", (True, 4, 1), {}),
    ("cell", (3, 4, 0), {}),
    ("cell", (3, 4, None), {}),
    ("cell", (3, 4), {"bias": np.False_}),
    ("cell", (0, 4), {}),
    ("cell", (3, 0), {}),
    ("cell", (3, 4), {"device": "meta", "dtype": torch.float16}),
    ("RNNCell", (3, 4, True, "relu", "cpu", torch.float64), {}),
    ("LSTMCell", (3, 4, True, "cpu", torch.float64), {}),
    ("GRUCell", (3, 4, False, torch.device("cpu"), torch.float64), {}),
]
GROUPS = {"*": LAYERS, "cell": STEPS}
ROWS = [
    (class_name, args, options)
    for group, args, options in ACCEPTED
    for class_name in GROUPS.get(group, (group,))
]


def make_layer(
    library: Any, class_name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    torch.manual_seed(0)
    return getattr(library, class_name)(*args, **options)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature:UserWarning")
@pytest.mark.parametrize(("class_name", "args", "options"), ROWS)
def test_arguments_that_torch_accepts_are_accepted(
    class_name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    ours, theirs = (make_layer(library, class_name, args, options) for library in (nn, torch.nn))
    expected = dict(theirs.named_parameters())
    for name, mine in ours.named_parameters():
        theirs_parameter = expected.pop(name)
        assert (mine.shape, mine.dtype, mine.device) == (
            theirs_parameter.shape,
            theirs_parameter.dtype,
            theirs_parameter.device,
        )
        assert mine.is_meta or torch.equal(mine, theirs_parameter)  # the same draws
    assert not expected
    for name in ("input_size", "hidden_size", "num_layers", "proj_size", "dropout", "batch_first"):
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    for name in ("bias", "bidirectional"):
        assert bool(getattr(ours, name, None)) == bool(getattr(theirs, name, None)), name


class Index:
    """Nothing but ``__index__``."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


@pytest.mark.parametrize(
    "size", [np.int64(3), torch.tensor(3), np.array(3), torch.tensor([3]), Index(3)]
)
def test_sizes_are_whatever_is_an_index(size: Any) -> None:
    """Which torch.nn's layers refuse: they are ints afterwards, in files and printed."""
    layer = nn.LSTM(size, size, size, proj_size=Index(2))
    same_layer = nn.LSTM(3, 3, 3, proj_size=2)
    assert repr(layer) == repr(same_layer)
    assert [p.shape for p in layer.parameters()] == [p.shape for p in same_layer.parameters()]
    for name in ("input_size", "hidden_size", "num_layers", "proj_size"):
        assert type(getattr(layer, name)) is int
    assert type(nn.Recurrent(cells.MGU, size, size).spec.hidden_size) is int
    assert repr(nn.GRUCell(size, size)) == "unrolled.nn.GRUCell(3, 3)"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize("sizes", [(0, 4), (3, 0), (0, 0)])
@pytest.mark.parametrize("class_name", STEPS)
def test_steps_without_inputs_or_units(class_name: str, sizes: tuple[int, int]) -> None:
    ours, theirs = (make_layer(library, class_name, sizes, {}) for library in (nn, torch.nn))
    x = torch.ones(2, sizes[0])
    for mine, reference in zip(unpack(ours(x)), unpack(theirs(x)), strict=True):
        close(mine, reference, "output")


@pytest.mark.parametrize("dropout", [torch.tensor(0.5), np.array(0.5), np.float64(0.5)])
def test_a_probability_is_a_number_of_any_library(dropout: Any) -> None:
    assert nn.GRU(3, 4, 2, dropout=dropout).dropout == 0.5


@pytest.mark.parametrize("dropout", [torch.tensor(True), np.bool_(False), True, "0.5", b"0.5"])
def test_dropout_must_be_a_probability(dropout: Any) -> None:
    with pytest.raises(ValueError, match=r"GRU: dropout should be .* in \[0, 1\], got"):
        nn.GRU(3, 4, 2, dropout=dropout)


@pytest.mark.parametrize("dropout", [None, "much", [0.5], 0.5j, np.ones(2), torch.ones(2), 10**400])
def test_dropout_must_be_a_number(dropout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^GRU: .*; dropout must be a number in .*"):
        nn.GRU(3, 4, 2, dropout=dropout)


def test_no_projection_of_gru_and_rnn() -> None:
    """torch takes a 0 by position and refuses it by name; a width it refuses only by name."""
    assert nn.GRU(3, 4, proj_size=0).proj_size == 0
    with pytest.raises(ValueError, match="only supported for LSTM"):
        nn.GRU(3, 4, 1, True, False, 0.0, False, 2)
    with pytest.raises(ValueError, match="only supported for LSTM"):
        nn.RNN(3, 4, proj_size="2")  # type: ignore[arg-type]


def outputs(layer: Any, x: Tensor) -> tuple[Tensor, ...]:
    output, states = layer(x)
    return output, *unpack(states)


SETTINGS: list[tuple[str, str, Any]] = [
    ("GRU", "batch_first", True),
    ("LSTM", "dropout", 1.0),
    ("RNN", "mode", "RNN_RELU"),
]


@pytest.mark.parametrize(("class_name", "name", "value"), SETTINGS)
def test_what_is_set_later_holds_as_in_torch(class_name: str, name: str, value: Any) -> None:
    ours, theirs = (getattr(library, class_name)(3, 4, 2).double() for library in (nn, torch.nn))
    theirs.load_state_dict(ours.state_dict())
    x = tokens(3, 3, 3)
    old_outputs = outputs(ours, x)
    setattr(ours, name, value)
    setattr(theirs, name, value)
    new_outputs = outputs(ours, x)
    assert not torch.equal(old_outputs[0], new_outputs[0])
    for mine, reference in zip(new_outputs, outputs(theirs, x), strict=True):
        close(mine, reference, "output")
    assert ours.extra_repr() == theirs.extra_repr()


@pytest.mark.parametrize("subclass", [False, True])
def test_a_nonlinearity_is_set(subclass: bool) -> None:
    """By name, function or module, of a layer and of a cell; torch.nn.RNN goes by its mode."""
    x = tokens(3, 2, 3)
    for class_name in ("RNN", "RNNCell"):
        ours = getattr(torch_subclasses if subclass else nn, class_name)(3, 4).double()
        data = x if class_name == "RNN" else x[0]
        head = unpack(ours(data))[0]
        for value in ("relu", torch.nn.ELU(), torch.sin, "tanh"):
            ours.nonlinearity = value
            second = getattr(nn, class_name)(3, 4, nonlinearity=value).double()
            second.load_state_dict(ours.state_dict())
            for layer in (ours, copy.deepcopy(ours)):
                assert_equal(unpack(layer(data))[0], unpack(second(data))[0])
            assert list(ours.children()) == ([value] if isinstance(value, torch.nn.ELU) else [])
            assert getattr(ours, "mode", None) == getattr(second, "mode", None)
        assert_equal(unpack(ours(data))[0], head)
    step = torch.nn.RNNCell(3, 4)
    step.nonlinearity = "relu"
    mine = nn.convert(copy.deepcopy(step)).model
    close(mine(x[0].float()), step(x[0].float()), "output")
    with pytest.raises(ValueError, match=r"mode must be one of 'RNN_TANH', .*, got 'RNN_ELU'"):
        nn.RNN(3, 4).mode = "RNN_ELU"
    with pytest.raises(RuntimeError, match=r"Unknown nonlinearity: elu\. nonlinearity must be"):
        nn.RNNCell(3, 4).nonlinearity = "elu"


def test_convert_goes_by_the_mode() -> None:
    """torch.nn.RNN looks at its nonlinearity when it is made, and at its mode when it runs."""
    theirs, x = torch.nn.RNN(3, 4).double(), tokens(3, 2, 3)
    theirs.nonlinearity = "relu"
    close(nn.convert(copy.deepcopy(theirs)).model(x)[0], theirs(x)[0], "output")
    theirs.mode = "RNN_RELU"
    theirs.nonlinearity = "tanh"
    close(nn.convert(copy.deepcopy(theirs)).model(x)[0], theirs(x)[0], "output")


def test_sizes_follow_what_is_set() -> None:
    """Tools that prune units set smaller weights and then the sizes, as they do with torch.nn's."""
    x = tokens(5, 2, 3)
    for library in (nn, torch.nn):
        layer = library.GRU(3, 6).double()
        layer(x)
        units = torch.tensor([0, 2, 3, 7, 9])[:2]
        rows = torch.cat([units + 6 * gate for gate in range(3)])
        for name, weight in list(layer.named_parameters()):
            smaller = weight.detach()[rows]
            smaller = smaller[:, units] if name == "weight_hh_l0" else smaller
            setattr(layer, name, torch.nn.Parameter(smaller))
        layer.hidden_size = 2
        second = torch.nn.GRU(3, 2).double()
        second.load_state_dict(layer.state_dict())
        for module in (layer, pickle.loads(pickle.dumps(layer))):
            for mine, expected in zip(outputs(module, x), outputs(second, x), strict=True):
                close(mine, expected, "output")
    step = nn.GRUCell(3, 6)
    step.hidden_size = 2
    assert step.spec.hidden_size == 2


SET_WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("batch_first", 1, TypeError, "GRU: batch_first should be of type bool, got: int"),
    ("bias", None, TypeError, "GRU: bias should be of type bool"),
    ("bidirectional", "no", TypeError, "GRU: bidirectional must be a bool, got 'no'"),
    ("dropout", 2.0, ValueError, r"GRU: dropout .* in \[0, 1\], got 2.0"),
    ("hidden_size", "4", TypeError, "GRU: hidden_size should be of type int, got: str"),
    ("num_layers", 0, ValueError, "GRU: num_layers must be greater than zero, got 0"),
    ("proj_size", 4, ValueError, "GRU: proj_size has to be smaller than hidden_size"),
    ("merge", "mean", ValueError, "GRU: merge must be one of .*, got 'mean'"),
    ("checkpoint", -1, ValueError, "GRU: checkpoint must be a bool or a number of steps, got -1"),
    ("cell", torch.nn.LSTM, TypeError, "whose cell is unrolled.cells.LSTM"),
]


@pytest.mark.parametrize(("name", "value", "error", "pattern"), SET_WRONG)
def test_what_is_set_is_checked_as_when_made(
    name: str, value: Any, error: type[Exception], pattern: str
) -> None:
    layer, x = nn.GRU(3, 4), torch.ones(5, 2, 3)
    old_outputs = layer(x)[0]
    with pytest.raises(error, match=pattern):
        setattr(layer, name, value)
    assert_equal(layer(x)[0], old_outputs)
    with pytest.raises(RuntimeError, match="GRUCell: hidden_size must not be negative, got -1"):
        nn.GRUCell(3, 4).hidden_size = -1
    layer.hidden_size = np.int64(5)
    assert type(layer.hidden_size) is int
    with pytest.raises(RuntimeError, match=r"GRU: weight_ih_l0 must have shape \[15, 3\], got"):
        layer(x)


def test_a_cell_is_set_by_its_class() -> None:
    layer = nn.Recurrent(cells.RNN, 3, 4)
    layer.cell = cells.RNN
    assert type(layer.cell) is cells.RNN
    assert nn.GRU(3, 4, checkpoint=np.int64(4)).checkpoint == 4


MERGED: Callable[[], nn.Recurrent] = lambda: nn.Recurrent(  # noqa: E731
    cells.MGU, 3, 4, bidirectional=True, dtype=torch.float64
)


def test_merge_and_cell_are_set() -> None:
    layer, x = MERGED(), tokens(5, 2, 3)
    single = layer(x)[0]
    layer.merge = "sum"
    close(layer(x)[0], single[..., :4] + single[..., 4:], "output")
    layer = nn.Recurrent(cells.RNN(tanh), 3, 4, dtype=torch.float64)
    layer(x)
    layer.cell = cells.RNN(cells.relu)
    assert (layer(x)[0] >= 0).all()


def test_weights_in_torchs_order_can_be_read_but_not_set() -> None:
    ours, theirs = nn.LSTM(3, 4, 2, proj_size=2), torch.nn.LSTM(3, 4, 2, proj_size=2)
    assert ours._flat_weights_names == theirs._flat_weights_names
    assert [w.shape for w in ours._flat_weights] == [w.shape for w in theirs._flat_weights]
    ours._flat_weights = list(ours._flat_weights)  # the very same: nothing to do
    with pytest.raises(AttributeError, match="LSTM: _flat_weights must hold the layer's own"):
        ours._flat_weights = [w.clone() for w in ours._flat_weights]
    with pytest.raises(TypeError):
        ours._flat_weights[0] = theirs._flat_weights[0]
    ours.weight_ih_l0 = theirs.weight_ih_l0
    assert ours._flat_weights[0] is theirs.weight_ih_l0


X = torch.zeros(5, 2, 3)
S = torch.zeros(2, 2, 4)
CHECKS: list[Callable[[Any], Any]] = [
    lambda layer: layer.check_input(X[0], None),
    lambda layer: layer.check_input(X, torch.tensor([2])),
    lambda layer: layer.check_input(X[..., :2], None),
    lambda layer: layer.check_input(X.double(), None),
    lambda layer: layer.check_hidden_size(S, (2, 2, 5)),
    lambda layer: layer.check_hidden_size(S, (2, 2, 5), "must be {}, got {}"),
    lambda layer: layer.check_forward_args(X, pack(layer, S[:1]), None),
    lambda layer: layer.check_forward_args(X[:, 0], pack(layer, S), torch.tensor([2, 1, 1, 1])),
    lambda layer: layer.check_forward_args(X[:, 0], pack(layer, S), torch.tensor([3, 2])),
    lambda layer: layer.get_expected_hidden_size(X, None),
    lambda layer: layer.get_expected_hidden_size(X[0], torch.tensor([3, 2])),
    lambda layer: layer.get_expected_cell_size(X, None),
    lambda layer: layer.permute_hidden(pack(layer, S), None),
    lambda layer: layer.permute_hidden(pack(layer, S), torch.tensor([1, 0])),
    lambda layer: layer._weights_have_changed(),
    lambda layer: layer._update_flat_weights(),
    lambda layer: layer._init_flat_weights(),
    lambda layer: layer.flatten_parameters(),
]


def pack(layer: Any, state: Tensor) -> Any:
    """States for a layer: an LSTM takes two."""
    two = layer.mode == "LSTM"
    return (state, torch.zeros(state.shape[0], state.shape[1], 4)) if two else state


def outcome(check: Callable[[Any], Any], layer: Any) -> Any:
    """What a call returns, or the exception that it raises."""
    try:
        return check(layer)
    except Exception as error:
        return error


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("class_name", LAYERS)
def test_members_that_code_calls(class_name: str, check: Callable[[Any], Any]) -> None:
    """The same answer, or the same class of exception and torch's text in it."""
    ours, theirs = getattr(nn, class_name)(3, 4, 2), getattr(torch.nn, class_name)(3, 4, 2)
    expected, actual = outcome(check, theirs), outcome(check, ours)
    if isinstance(expected, Exception):
        assert isinstance(actual, type(expected))
        assert isinstance(expected, AttributeError) or str(expected) in str(actual)
        return
    assert type(actual) is type(expected)
    if isinstance(expected, Tensor):
        assert_equal(actual, expected)
    elif isinstance(expected, tuple) and isinstance(expected[0], Tensor):
        assert all(map(torch.equal, actual, expected))
    else:
        assert actual == expected
