"""Extreme numbers and sizes: NaN and infinity, overflow, too little memory."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.subjects import LAYERS, pack, unpack
from unrolled import _core, cells, engines, nn
from unrolled.program import make_program
from unrolled.program._encode import encode

DTYPES = [torch.float32, torch.float64]
CLASSIC: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": 3}),
    "gru": ("GRU", {}),
}
PLACES = ("input", "hx", "last hx", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def _pair(layer_name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Our layer and torch's, with the same numbers."""
    name, options = CLASSIC[layer_name]
    options = {**options, "num_layers": 2, "bidirectional": True, "dtype": dtype}
    theirs = getattr(torch.nn, name)(3, 5, **options)
    ours = getattr(nn, name)(3, 5, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _outcome(layer: Any, x: Tensor, hx: list[Tensor]) -> dict[str, Tensor]:
    """Results and all gradients."""
    generator = torch.Generator().manual_seed(5)
    x, hx = x.clone().requires_grad_(), [state.clone().requires_grad_() for state in hx]
    output, final = layer(x, pack(hx))
    parts = [output, *unpack(final)]
    output_grads = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parts]
    names = ["input", *(f"hx {k}" for k in range(len(hx)))]
    names += [name for name, _ in layer.named_parameters()]
    grads = torch.autograd.grad(parts, [x, *hx, *layer.parameters()], output_grads)
    results = {f"result {k}": part.detach() for k, part in enumerate(parts)}
    return results | {f"gradient of {n}": g for n, g in zip(names, grads, strict=True)}


def _classes(tensor: Tensor) -> Tensor:
    """0 finite, 1 NaN, 2 and 3 the infinities."""
    return tensor.isnan() + 2 * tensor.eq(torch.inf) + 3 * tensor.eq(-torch.inf)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer_name", CLASSIC)
def test_what_is_not_finite_spreads_as_in_torch(
    layer_name: str, dtype: torch.dtype, recorded: bool
) -> None:
    """One number of one array; then each number out is NaN, infinite or finite as torch's is."""
    touched = 0
    for place in PLACES:
        for value in (torch.nan, torch.inf, -torch.inf):
            ours, theirs = _pair(layer_name, dtype)
            x = torch.randn(6, 4, 3, dtype=dtype)
            hx = [torch.randn(4, 4, width, dtype=dtype) for width in ours.spec.state_widths]
            with torch.no_grad():
                for layer in (ours, theirs):
                    inputs = {"input": x, "hx": hx[0], "last hx": hx[-1]}
                    array = inputs[place] if place in inputs else getattr(layer, place)
                    array.view(-1)[array.numel() // 3] = value
            with engines.use("native"), engines.record() if recorded else nullcontext():
                actual = _outcome(ours, x, hx)
            expected = _outcome(theirs, x, hx)
            for name, part in expected.items():
                is_equal = torch.equal(_classes(actual[name]), _classes(part))
                assert is_equal, f"{value} in {place}: {name}: {actual[name]} and not {part}"
                touched += int(_classes(part).any())
    assert touched > 100


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("layer_name", LAYERS)
def test_a_sequence_that_is_not_finite_touches_no_other(layer_name: str, grad: bool) -> None:
    layer = LAYERS[layer_name](5, 18, num_layers=2, bidirectional=True)
    for T, N in ((1, 3), (4, 9), (7, 33)):
        clean = torch.randn(T, N, 5)
        expected = _rows(layer, clean, grad)
        for value in (torch.nan, torch.inf):
            x = clean.clone()
            x[T // 2, N // 2] = value
            remaining = [n for n in range(N) if n != N // 2]
            for mine, part in zip(_rows(layer, x, grad), expected, strict=True):
                assert not mine[:, N // 2].isfinite().all()
                assert torch.equal(mine[:, remaining], part[:, remaining])


def _rows(layer: nn.Recurrent, x: Tensor, grad: bool) -> list[Tensor]:
    """What has a row for each sequence: results, and the gradient of the input."""
    x = x.clone().requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        output, final = layer(x)
    parts = [output, *unpack(final)]
    if not grad:
        return parts
    loss = sum((part * part).sum() for part in parts)
    return [*(part.detach() for part in parts), *torch.autograd.grad(loss, [x])]


SMALL_LAYERS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: nn.LSTM(3, 4),
    "batch first": lambda: nn.LSTM(3, 4, batch_first=True),
    "own": lambda: nn.Recurrent(cells.PeepholeLSTM, 3, 4),
    "both": lambda: nn.GRU(3, 4, bidirectional=True),
}


def _wide(*shape: int) -> Tensor:
    """A tensor of any size that takes a few bytes."""
    return torch.zeros(1).expand(shape)


# Beyond the addresses that a process has, so that nowhere such memory can be had.
HUGE = [(1 << 46, 1), (1, 1 << 46), (1 << 23, 1 << 23), (1 << 31, 1 << 29)]
REFUSED = r"allocate|overflow|sizes: product must be from 0 to 1099511627776"


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("layer_name", SMALL_LAYERS)
def test_inputs_beyond_memory_are_refused(layer_name: str, grad: bool) -> None:
    """The layer works afterwards."""
    layer, x = SMALL_LAYERS[layer_name](), torch.randn(2, 2, 3)
    with torch.set_grad_enabled(grad):
        expected = layer(x)[0]
        for T, N in HUGE:
            shape = (N, T, 3) if layer.batch_first else (T, N, 3)
            ragged = {"lengths": torch.ones(1, dtype=torch.int64).expand(N)}
            for options in ({}, ragged) if N != 1 << 29 else ({},):  # so many can be sorted
                with pytest.raises((RuntimeError, ValueError), match=REFUSED):
                    layer(_wide(*shape), **options)
        assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize("grad", [False, True])
def test_steps_beyond_memory_are_refused(grad: bool) -> None:
    """Also of an empty input, whose tensor has a size all the same."""
    with torch.set_grad_enabled(grad):
        for cell, I in ((nn.LSTMCell(3, 4), 3), (nn.GRUCell(0, 4), 0)):  # noqa: E741
            for N in (1 << 46, (1 << 60) + 1, (1 << 61) - 1):
                x = _wide(N, 3) if I else torch.empty(N, 0)
                with pytest.raises((RuntimeError, ValueError), match=REFUSED):
                    cell(x)


@pytest.mark.parametrize("grad", [False, True])
def test_steps_of_no_sequence_are_not_counted(grad: bool) -> None:
    """An empty batch returns at once, however long; its weights have a gradient of zeros."""
    layer = nn.LSTM(3, 4, bidirectional=True)
    with torch.set_grad_enabled(grad):
        output, (h, _) = layer(torch.empty(1 << 40, 0, 3))
    assert output.shape == (1 << 40, 0, 8)
    assert h.shape == (2, 0, 4)
    if grad:
        for gradient in torch.autograd.grad(output.sum(), [*layer.parameters()]):
            assert not gradient.any()


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_blocks_of_no_sequence(engine: str) -> None:
    """Block-diagonal products with no rows."""
    layer = nn.Recurrent(cells.SLSTM(heads=2), 3, 4)
    with engines.use(engine):
        output, final = layer(torch.empty(5, 0, 3))
    assert output.shape == (5, 0, 4)
    assert [state.shape for state in final] == [(1, 0, 4)] * 4


def test_parameters_beyond_memory_are_refused() -> None:
    """By name; on a device without memory as well."""
    makers: list[tuple[Callable[[], Any], str]] = [
        (lambda: nn.LSTM(4, 1 << 62), "weight_ih_l0 must have at most"),
        (lambda: nn.LSTM(1 << 62, 4), "weight_ih_l0 must have at most"),
        (lambda: nn.GRU(4, 1 << 31, device="meta"), "weight_hh_l0 must have at most"),
        (lambda: nn.GRUCell(4, 1 << 40, device="meta"), "weight_hh must have at most"),
        (lambda: nn.LSTM(4, 1 << 45), "allocate"),
        (lambda: nn.Recurrent(cells.IndRNN, 1, 1 << 46), "allocate"),
    ]
    for make, message in makers:
        with pytest.raises(RuntimeError, match=message):
            make()


def test_layers_wider_than_a_program_may_be_run_elsewhere() -> None:
    layer, x = nn.Recurrent(cells.IndRNN, 1, (1 << 24) + 1), torch.zeros(1, 1, 1)
    explanation = engines.explain(layer, x)
    assert explanation.engine == "reference"
    assert "1 to 16777216 units, got 16777217" in str(explanation.refusals["native"])
    with torch.no_grad():
        assert torch.equal(layer(x)[0][0, 0], layer.bias_ih_l0.relu())
    empty = nn.RNNCell(3, 0)
    assert empty(torch.zeros(2, 3)).shape == (2, 0)
    assert "1 to 16777216 units, got 0" in str(
        engines.explain(empty, torch.zeros(2, 3)).refusals["native"]
    )


TEXT = encode(make_program(cells.GRU()))


def _sweep(values: Tensor, states: list[Tensor]) -> Any:
    """The operator, of a GRU with four units."""
    matrices = [torch.zeros(12, values.shape[2]), torch.zeros(12), torch.zeros(12, 4)]
    matrices.append(torch.zeros(12))
    return torch.ops.unrolled.sweep(
        values, states, [], matrices, [], TEXT, [4, 4], False, False, None, None, True
    )


def test_the_operator_refuses_sizes_beyond_memory() -> None:
    assert _sweep(torch.zeros(2, 1, 3), [torch.zeros(1, 4)])[0].shape == (2, 1, 4)
    for T, N in HUGE:
        with pytest.raises((RuntimeError, ValueError), match=REFUSED):
            _sweep(_wide(T, N, 3), [_wide(N, 4)])


# T, N, I, rows, first row, how far the next step and the next sequence are, threads.
FITTING = (2, 1, 5, 2, 0, 1, 1, 1)


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("size", [1 << 31, (1 << 40) + 1, 1 << 62, (1 << 63) - 1, -(1 << 63)])
def test_the_core_refuses_sizes_that_do_not_fit(place: int, size: int) -> None:
    """Also where their sums and products overflow 64 bits."""
    program = _core.Program(TEXT, 4, 4)
    shape = [*FITTING[:place], size, *FITTING[place + 1 :]]
    if place == 6:
        shape[:2] = [1, 2]  # how far the next sequence is matters where there is one
    a = torch.zeros(100)
    numbers = [10, 8, 32 * 4, 60, 12, 48, 12, 4, 4]
    arrays = [0, 0, 0, 0, *(n for count in numbers for n in (a.data_ptr(), count))]
    for run in (_core.forward, _core.backward):
        with pytest.raises(ValueError, match="must "):
            run(program, "", False, shape, arrays)
    if place < 2 and size > 1 << 40:
        place_of = [*shape[:2], 2, 0, 1, 1]
        with pytest.raises(ValueError, match="sizes: product must be from 0 to"):
            _core.CompiledSweep(
                program, "", place_of, None, None, 0, [1, 2, 3, 4], [(1, 4)], 1, False
            )


def test_the_core_refuses_programs_of_sizes_out_of_range() -> None:
    for H in (0, -1, (1 << 24) + 1, 1 << 62):
        with pytest.raises(ValueError, match=f"H and P must be from 1 to 16777216, got {H}"):
            _core.Program(TEXT, H, 4)
