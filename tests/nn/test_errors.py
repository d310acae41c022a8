"""A table of bad calls: torch.nn's exception class for each, and a message that names the argument.

``torch.nn``'s own class is called in the same way and must fail with a class that ours is, except
where torch fails by accident or has no such argument.
"""

import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tests.support.subjects import Peephole
from unrolled import cells, engines, nn

X = torch.zeros(5, 2, 3)
H = torch.zeros(1, 2, 4)

Make = Callable[[Any], Any]
Row = tuple[Make, str]


def packed(*shape: int, dtype: torch.dtype = torch.float32) -> PackedSequence:
    return pack_padded_sequence(torch.zeros(*shape, dtype=dtype), [5, 3])


# m is unrolled.nn or torch.nn; the pattern is of our message: argument, requirement, value.
CONSTRUCTORS: list[Row] = [
    (lambda m: m.GRU(0, 4), "input_size must be greater than zero, got 0"),
    (lambda m: m.GRU(-3, 4), "input_size must be greater than zero, got -3"),
    (lambda m: m.GRU(3.0, 4), "input_size must be an integer, .*got 3.0"),
    (lambda m: m.GRU("3", 4), "input_size must be an integer, .*got '3'"),
    (lambda m: m.LSTM(3, 0), "hidden_size must be greater than zero, got 0"),
    (lambda m: m.LSTM(3, -1), "hidden_size must be greater than zero, got -1"),
    (lambda m: m.LSTM(3, 4.5), "hidden_size must be an integer, .*got 4.5"),
    (lambda m: m.LSTM(3, None), "hidden_size must be an integer, .*got None"),
    (lambda m: m.RNN(3, 4, 0), "num_layers must be greater than zero, got 0"),
    (lambda m: m.RNN(3, 4, -2), "num_layers must be greater than zero, got -2"),
    (lambda m: m.RNN(3, 4, 1.5), "num_layers must be an integer, .*got 1.5"),
    (lambda m: m.RNN(3, 4, "2"), "num_layers must be an integer, .*got '2'"),
    (lambda m: m.GRU(3, 4, bias=1), "bias must be a bool, got 1"),
    (lambda m: m.GRU(3, 4, bias=None), "bias must be a bool, got None"),
    (lambda m: m.GRU(3, 4, batch_first=0), "batch_first must be a bool, got 0"),
    (lambda m: m.GRU(3, 4, batch_first="yes"), "batch_first must be a bool, got 'yes'"),
    (lambda m: m.GRU(3, 4, 2, dropout=1.1), r"dropout must be a number in \[0, 1\], got 1.1"),
    (lambda m: m.GRU(3, 4, 2, dropout=-0.1), r"dropout must be a number in \[0, 1\], got -0.1"),
    (lambda m: m.GRU(3, 4, 2, dropout=True), r"dropout must be a number in \[0, 1\], got True"),
    (lambda m: m.GRU(3, 4, 2, dropout="0.1x"), "could not convert string to float: '0.1x'"),
    (lambda m: m.GRU(3, 4, 2, dropout="0.1"), "dropout must be a number in .*, got '0.1'"),
    (lambda m: m.GRU(3, 4, 2, dropout=None), "argument must be a .* number, not 'NoneType'"),
    (lambda m: m.LSTM(3, 4, proj_size=4), "proj_size must be .* smaller than hidden_size=4, got 4"),
    (lambda m: m.LSTM(3, 4, proj_size=-1), "proj_size should be a positive integer or zero.*-1"),
    (lambda m: m.RNN(3, 4, proj_size=2), "only supported for LSTM.*, got proj_size=2"),
    (lambda m: m.GRU(3, 4, proj_size=2), "only supported for LSTM.*, got proj_size=2"),
    (lambda m: m.RNN(3, 4, nonlinearity="elu"), "nonlinearity must be one of .*, got 'elu'"),
    (lambda m: m.RNN(3, 4, nonlinearity=None), "nonlinearity must be one of .*, got None"),
    (lambda m: m.GRU(3, 4, layers=2), "unexpected keyword argument 'layers'"),
    (lambda m: m.LSTM(3, 4, nonlinearity="relu"), "unexpected keyword argument 'nonlinearity'"),
    (lambda m: m.GRU(3), "missing .* argument.*hidden_size"),
    (lambda m: m.GRUCell(3.0, 4), "input_size must be an integer, .*got 3.0"),
    (lambda m: m.GRUCell(3, "4"), "hidden_size must be an integer, .*got '4'"),
    (lambda m: m.GRUCell(-3, 4), "input_size must not be negative, got -3"),
    (lambda m: m.LSTMCell(3, -4), "hidden_size must not be negative, got -4"),
    (lambda m: m.LSTMCell(3, 4, layers=2), "unexpected keyword argument 'layers'"),
    (lambda m: m.RNNCell(3, 4, nonlinearity="elu")(X[0]), "nonlinearity .*, got 'elu'"),
]

CALLS: list[Row] = [
    (lambda m: m.GRU(3, 4)(X[0, 0]), "input to be 2D or 3D, got 1D.* input must have shape"),
    (lambda m: m.GRU(3, 4)(X[None]), "input to be 2D or 3D, got 4D.* input must have shape"),
    (lambda m: m.LSTM(3, 4)(X[0, 0]), "input to be 2D or 3D, got 1D.* input must have shape"),
    (lambda m: m.RNN(2, 4)(X), r"input.size\(-1\) must be 2, got shape"),
    (lambda m: m.RNN(2, 4)(X[:, 0]), r"input.size\(-1\) must be 2, got shape"),
    (lambda m: m.LSTM(3, 4)(X.double()), r"input dtype \(torch.float64\) does not match"),
    (lambda m: m.LSTM(3, 4)(X.long()), r"input dtype \(torch.int64\) does not match"),
    (lambda m: m.LSTM(3, 4)(X.cfloat()), r"input dtype \(torch.complex64\) does not match"),
    (lambda m: m.GRU(3, 4)(X.half()), r"input dtype \(torch.float16\) does not match"),
    (lambda m: m.GRU(3, 4)(X, H[0]), r"hx must have shape \[1, 2, 4\].*got \[2, 4"),
    (lambda m: m.GRU(3, 4)(X[:, 0], H), r"hx must have shape \[1, 4\].*unbatched.*got \[1"),
    (lambda m: m.GRU(3, 4)(X, H[:, :1]), r"hx must have shape \[1, 2, 4\].*got \[1, 1, 4\]"),
    (lambda m: m.GRU(3, 4)(X, H[..., :3]), r"hx must have shape \[1, 2, 4\].*got \[1, 2, 3\]"),
    (lambda m: m.GRU(3, 4, 2)(X, H), r"hx must have shape \[2, 2, 4\].*got \[1, 2, 4\]"),
    (lambda m: m.GRU(3, 4)(X, H.double()), "hx must have dtype torch.float32.*float64"),
    (lambda m: m.RNN(3, 4)(X, H.double()), "hx must have dtype torch.float32.*float64"),
    (
        lambda m: m.LSTM(3, 4)(X, (H[0], H)),
        r"hx\[0\] must have shape \[1, 2, 4\].*got \[2, 4\]",
    ),
    (
        lambda m: m.LSTM(3, 4)(X, (H, H[0])),
        r"hx\[1\] must have shape \[1, 2, 4\].*got \[2, 4\]",
    ),
    (
        lambda m: m.LSTM(3, 4)(X[:, 0], (H, H)),
        r"hx\[0\] must have shape \[1, 4\].*unbatched.*got \[1, 2, 4\]",
    ),
    (lambda m: m.LSTM(3, 4)(X, (H[:, :1], H)), r"hx\[0\] must have shape \[1, 2, 4\].*got"),
    (lambda m: m.LSTM(3, 4)(X, (H, H[..., :3])), r"hx\[1\] must have shape .*got \[1, 2, 3\]"),
    (lambda m: m.LSTM(3, 4, proj_size=2)(X, (H, H)), r"hx\[0\] must have shape \[1, 2, 2\].*got"),
    (lambda m: m.LSTM(3, 4)(X, (H.double(), H)), r"hx\[0\] must have dtype torch.float32"),
    (lambda m: m.LSTM(3, 4)(X, (H, H.double())), r"hx\[1\] must have dtype torch.float32"),
    (lambda m: m.GRU(3, 4)(X, (H, H)), "hx must be a Tensor, got tuple"),
    (lambda m: m.RNN(3, 4)(X, [H]), "hx must be a Tensor, got list"),
    (lambda m: m.RNN(3, 4)(X, 0), "hx must be a Tensor, got int"),
    (lambda m: m.GRU(3, 4)(X[:0]), r"input must have T > 0, got shape \[0, 2, 3\]"),
    (lambda m: m.LSTM(3, 4)(X[:0]), "input must have T > 0"),
    (lambda m: m.LSTM(3, 4)(X[:0, 0]), "input must have T > 0"),
    (lambda m: m.LSTM(3, 4, batch_first=True)(X[:, :0]), "input must have T > 0"),
    (lambda m: m.GRU(3, 4)(None), "input must be a Tensor or a PackedSequence, got NoneType"),
    (lambda m: m.GRU(3, 4)("abc"), "input must be a Tensor or a PackedSequence, got str"),
    (lambda m: m.GRU(3, 4)(X.tolist()), "input must be .*, got list"),
    (lambda m: m.GRU(3, 4)(), "missing 1 required positional argument: 'input'"),
    (lambda m: m.LSTM(3, 4)(X, size=2), "unexpected keyword argument 'size'"),
    (lambda m: m.GRU(2, 4)(packed(5, 2, 3)), r"input.size\(-1\) must be 2, got shape"),
    (
        lambda m: m.GRU(3, 4)(packed(5, 2, 3, dtype=torch.float64)),
        r"input dtype \(torch.float64\) does not match",
    ),
    (lambda m: m.GRU(3, 4)(packed(5, 2, 3), H[:, :1]), r"hx must have shape \[1, 2, 4\]"),
    (lambda m: m.LSTM(3, 4)(packed(5, 2, 3), (H, H[..., :2])), r"hx\[1\] must have shape"),
    (lambda m: m.GRUCell(3, 4)(X[0, 0, 0]), "input to be 1D or 2D, got 0D.* input must have shape"),
    (lambda m: m.GRUCell(3, 4)(X), "input to be 1D or 2D, got 3D.* input must have shape"),
    (lambda m: m.LSTMCell(3, 4)(X), "input to be 1D or 2D, got 3D.* input must have shape"),
    (lambda m: m.RNNCell(2, 4)(X[0]), r"input.size\(-1\) must be 2, got shape"),
    (lambda m: m.LSTMCell(2, 4)(X[0]), r"input.size\(-1\) must be 2, got shape"),
    (lambda m: m.GRUCell(2, 4)(X[0, 0]), r"input.size\(-1\) must be 2, got shape"),
    (lambda m: m.GRUCell(3, 4)(X[0].double()), r"input dtype \(torch.float64\) does not match"),
    (lambda m: m.RNNCell(3, 4)(X[0].long()), r"input dtype \(torch.int64\) does not match"),
    (lambda m: m.GRUCell(3, 4)(X[0], H), "hx must have shape .*, got"),
    (lambda m: m.RNNCell(3, 4)(X[0], H), "hx must have shape .*, got"),
    (lambda m: m.LSTMCell(3, 4)(X[0], (H, H)), "hx.* must have shape .*, got"),
    (lambda m: m.GRUCell(3, 4)(X[0], H[0, :1]), r"hx must have shape \[2, 4\].*got \[1, 4\]"),
    (lambda m: m.RNNCell(3, 4)(X[0], H[0, :, :3]), r"hx must have shape \[2, 4\].*got \[2, 3\]"),
    (lambda m: m.LSTMCell(3, 4)(X[0], (H[0], H[0, :, :3])), r"hx\[1\] must have shape \[2, 4\]"),
    (lambda m: m.GRUCell(3, 4)(X[0], H[0].double()), "hx must have dtype torch.float32.*float64"),
]

# torch fails at these by accident (an IndexError, an AttributeError), or takes them.
OURS: list[tuple[Make, type[Exception], str]] = [
    (lambda m: m.GRU(3, 4)(X.numpy()), TypeError, "input must be a Tensor .*, got ndarray"),
    (lambda m: m.GRU(3, 4)(X.to("meta")), RuntimeError, "input must be on cpu, .*got meta"),
    (lambda m: m.GRU(3, 4)(X, H.to("meta")), RuntimeError, "hx must be on cpu, .*got meta"),
    (lambda m: m.LSTM(3, 4)(X, H), TypeError, r"hx must be a tuple of 2 tensors \(h, c\)"),
    (lambda m: m.LSTM(3, 4)(X, (H,)), RuntimeError, r"hx must be a tuple of 2 tensors .*got 1"),
    (lambda m: m.LSTM(3, 4)(X, (H, H, H)), RuntimeError, r"hx must be a tuple of 2 .*got 3"),
    (lambda m: m.LSTM(3, 4)(X, (H, None)), TypeError, "hx must be a tuple of 2 tensors"),
    (lambda m: m.GRU(3, 4, merge="mean"), ValueError, "merge must be one of .*, got 'mean'"),
    (
        lambda m: m.GRU(3, 4, bidirectional="yes"),
        TypeError,
        "bidirectional must be a bool, .*'yes'",
    ),
    (lambda m: m.LSTM(3, 4, proj_size=1.0), TypeError, "proj_size must be an integer, .*got 1.0"),
    (lambda m: m.GRUCell(3, 4)(None), TypeError, "input must be a Tensor, got NoneType"),
    (lambda m: m.GRUCell(3, 4)(X[0], (H[0],)), TypeError, "hx must be a Tensor, got tuple"),
    (lambda m: m.LSTMCell(3, 4)(X[0], H[0]), TypeError, "hx must be a tuple of 2 tensors"),
    (lambda m: m.LSTMCell(3, 4)(X[0], (H[0],)), RuntimeError, "hx must be a tuple of 2 tensors"),
    (
        lambda m: m.GRUCell(3, 4)(X[0, 0], H[0]),
        RuntimeError,
        r"hx must have shape \[4\].*unbatched.*got \[2, 4\]",
    ),
    (
        lambda m: m.GRUCell(3, 4)(X[0], H[0, 0]),
        RuntimeError,
        r"hx must have shape \[2, 4\].*got \[4\]",
    ),
]

LENGTHS: list[tuple[Any, type[Exception], str]] = [
    ([1.0, 2.0], ValueError, "lengths must be integers, got dtype torch.float32"),
    ([True, False], ValueError, "lengths must be integers, got dtype torch.bool"),
    ("ab", TypeError, "lengths must be integers, got 'ab'"),
    ([None, 1], TypeError, r"lengths must be integers, got \[None, 1\]"),
    ([1], RuntimeError, r"lengths must have shape \[2\], .* got shape \[1\]"),
    ([1, 2, 3], RuntimeError, r"lengths must have shape \[2\], .* got shape \[3\]"),
    ([[1, 2]], RuntimeError, r"lengths must have shape \[2\], .* got shape \[1, 2\]"),
    (3, RuntimeError, r"lengths must have shape \[2\], .* got shape \[\]"),
    ([1, -1], ValueError, r"lengths must lie in \[0, 5\], got lengths\[1\] = -1"),
    (torch.tensor([6, 2]), ValueError, r"lengths must lie in \[0, 5\], got lengths\[0\] = 6"),
    (np.array([1.5, 2]), ValueError, "lengths must be integers, got dtype torch.float64"),
]

CUTS = torch.zeros(5, 2, dtype=torch.bool)
RESETS: list[tuple[Any, type[Exception], str]] = [
    ("ab", TypeError, "resets must be bool, got 'ab'"),
    ([[0, 1]] * 5, ValueError, "resets must have dtype torch.bool, got torch.int64"),
    (CUTS.long(), ValueError, "resets must have dtype torch.bool, got torch.int64"),
    (CUTS.float(), ValueError, "resets must have dtype torch.bool, got torch.float32"),
    (CUTS.t(), RuntimeError, r"resets must have shape \[5, 2\], got \[2, 5\]"),
    (CUTS[:4], RuntimeError, r"resets must have shape \[5, 2\], got \[4, 2\]"),
    (CUTS[:, 0], RuntimeError, r"resets must have shape \[5, 2\], got \[5\]"),
]

STATES: list[tuple[Any, type[Exception], str]] = [
    (H[0], RuntimeError, r"reset_state must have shape \[1, 2, 4\].*got \[2, 4\]"),
    (H.repeat(2, 1, 1), RuntimeError, r"reset_state must have shape \[1, 2, 4\].*got \[2, 2, 4\]"),
    (H.repeat(1, 2, 1), RuntimeError, r"got \[1, 4, 4\] \(or \[1, 1, 4\], shared by all\)"),
    (H[..., :3], RuntimeError, r"reset_state must have shape \[1, 2, 4\].*got \[1, 2, 3\]"),
    (H.double(), RuntimeError, "reset_state must have dtype torch.float32.*float64"),
    ((H, H), TypeError, "reset_state must be a Tensor, got tuple"),
    (0.0, TypeError, "reset_state must be a Tensor, got float"),
]


def _deliberate(trace: TracebackType) -> bool:
    """Whether torch.nn's own lines raised it: its text is then what code may look for."""
    frame = traceback.extract_tb(trace)[-1]
    return frame.filename == torch.nn.modules.rnn.__file__ and (frame.line or "").startswith(
        "raise"
    )


@pytest.mark.parametrize(("make", "pattern"), CONSTRUCTORS + CALLS)
def test_bad_calls_fail_as_in_torch(make: Make, pattern: str) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        make(torch.nn)
    with pytest.raises(theirs.type, match=pattern) as ours:
        make(nn)
    if _deliberate(theirs.tb):
        assert str(theirs.value) in str(ours.value)


@pytest.mark.parametrize(("make", "error", "pattern"), OURS)
def test_bad_calls_that_torch_does_not_check(
    make: Make, error: type[Exception], pattern: str
) -> None:
    with pytest.raises(error, match=pattern):
        make(nn)


@pytest.mark.parametrize(("lengths", "error", "pattern"), LENGTHS)
def test_bad_lengths(lengths: Any, error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match="GRU: .*" + pattern):
        nn.GRU(3, 4)(X, lengths=lengths)


@pytest.mark.parametrize(("resets", "error", "pattern"), RESETS)
def test_bad_resets(resets: Any, error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match="GRU: " + pattern):
        nn.GRU(3, 4)(X, resets=resets)


@pytest.mark.parametrize(("state", "error", "pattern"), STATES)
def test_bad_reset_states(state: Any, error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match="GRU: .*" + pattern):
        nn.GRU(3, 4)(X, resets=CUTS, reset_state=state)
    with pytest.raises(error, match="GRU: .*" + pattern):
        nn.GRU(3, 4)(X, reset_state=state)


def test_resets_follow_batch_first() -> None:
    layer = nn.GRU(3, 4, batch_first=True)
    layer(X, resets=CUTS)  # [N, T] of 5 sequences
    with pytest.raises(RuntimeError, match=r"resets must have shape \[5, 2\], got \[2, 5\]"):
        layer(X, resets=CUTS.t())
    with pytest.raises(RuntimeError, match=r"resets must have shape \[5\], got \[5, 2\]"):
        layer(X[:, 0], resets=CUTS)


def test_lengths_beside_a_packed_sequence() -> None:
    with pytest.raises(ValueError, match=r"lengths must be None for a .*, got \[5, 3\]"):
        nn.GRU(3, 4)(packed(5, 2, 3), lengths=[5, 3])
    with pytest.raises(
        RuntimeError, match=r"batch_sizes must add up to the 8 rows of input\.data, got 9"
    ):
        nn.GRU(3, 4)(PackedSequence(torch.zeros(8, 3), torch.tensor([5, 4])))


def test_one_class_for_what_torch_calls_two() -> None:
    """torch.nn.GRU(3, 4)(X, (H, H)) is an AttributeError there; who catches it catches ours."""
    with pytest.raises(nn.ArgumentTypeError) as caught:
        nn.GRU(3, 4)(X, (H, H))
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, AttributeError)


def test_dropout_that_does_nothing_warns_once_as_in_torch() -> None:
    makes: list[Make] = [
        lambda m: m.LSTM(3, 4, dropout=0.5),
        lambda m: m.RNN(3, 4, dropout=0.5),
        lambda m: nn.Recurrent(cells.GRU, 3, 4, dropout=0.5),
    ]
    for make in makes:
        for module in (torch.nn, nn):
            with pytest.warns(UserWarning, match=r"dropout.*0\.5.*num_layers") as caught:
                make(module)
            assert len(caught) == 1
        assert caught[0].filename == __file__


def test_valid_layers_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer_class in (nn.RNN, nn.LSTM, nn.GRU):
            layer_class(3, 4)
            layer_class(3, 4, 2, dropout=0.5, bidirectional=True, bias=False, batch_first=True)
        nn.LSTM(3, 4, proj_size=1)
        nn.Recurrent(Peephole, 3, 4, 2)
        for cell in (nn.RNNCell, nn.LSTMCell, nn.GRUCell):
            cell(3, 4)


def test_unknown_engine() -> None:
    with (
        pytest.raises(ValueError, match=r"name must be one of 'native', 'aten', .*, got 'cuda'"),
        engines.use("cuda"),
    ):
        pass


def test_a_forced_engine_that_cannot_run() -> None:
    layer = nn.Recurrent(Peephole, 3, 4)
    message = r"engine 'aten' is forced but cannot run this: .*Peephole\(\)"
    with engines.use("aten"), pytest.raises(RuntimeError, match=message):
        layer(X)


def test_errors_of_values_do_not_depend_on_the_engine(engine: str) -> None:
    def message(call: Callable[[], Tensor]) -> str:
        with pytest.raises((RuntimeError, ValueError)) as caught:
            call()
        return str(caught.value)

    layer = nn.GRU(3, 4)
    assert message(lambda: layer(X[..., :2])).startswith("GRU: input.size(-1)")
    assert message(lambda: layer(X, lengths=[9, 9])).startswith("GRU: lengths must lie in [0, 5]")
