"""The fast path has the bits of the general one, and does not run where it does not apply."""

import contextlib
import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import cells, engines, nn

LAYERS = {
    "rnn": lambda: nn.RNN(5, 7),
    "gru": lambda: nn.GRU(5, 7, num_layers=2, bidirectional=True),
    "lstm": lambda: nn.LSTM(5, 7, batch_first=True, bias=False),
    "projected": lambda: nn.LSTM(5, 7, num_layers=2, proj_size=3, bidirectional=True),
    "summed": lambda: nn.GRU(5, 7, num_layers=3, bidirectional=True, merge="sum"),
    "peephole": lambda: nn.Recurrent(cells.PeepholeLSTM, 5, 7, batch_first=True),
}


def flat(result: Any) -> list[Tensor]:
    output, final = result
    return [output, *(final if isinstance(final, tuple) else (final,))]


def states(layer: nn.Recurrent, N: int, dtype: torch.dtype) -> Any:
    LD = layer.spec.num_layers * layer.spec.num_directions
    result = tuple(torch.randn(LD, N, width, dtype=dtype) for width in layer.spec.state_widths)
    return result if len(result) > 1 else result[0]


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (20, 9)])
def test_equal_bits(
    layer_name: str,
    dtype: torch.dtype,
    size: tuple[int, int],
    fast_path_calls: list[bool],
    poisoned: None,
) -> None:
    layer = LAYERS[layer_name]().to(dtype)
    x = torch.randn(*size, 5, dtype=dtype)
    N = size[0] if layer.batch_first else size[1]
    for hx in (None, states(layer, N, dtype)):
        with torch.no_grad():
            short = flat(layer(x, hx))
            with engines.record():
                usual = flat(layer(x, hx))
        assert all(torch.equal(a, b) for a, b in zip(short, usual, strict=True))
        assert all(
            a.shape == b.shape and a.isfinite().all() for a, b in zip(short, usual, strict=True)
        )
    assert fast_path_calls == [True, False] * 2


def test_results_do_not_share_memory(fast_path_calls: list[bool]) -> None:
    layer, x = nn.LSTM(4, 4), torch.randn(1, 1, 4)
    with torch.no_grad():
        y, (h, c) = layer(x, (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)))
    assert fast_path_calls == [True]
    assert len({t.untyped_storage().data_ptr() for t in (x, y, h, c)}) == 4


def test_weights_are_read_at_each_call(fast_path_calls: list[bool]) -> None:
    layer, x = nn.GRU(4, 5), torch.randn(3, 2, 4)
    with torch.no_grad():
        output = layer(x)[0]
        layer.weight_hh_l0.data.numpy()[:] = 0
        layer.bias_ih_l0.data = torch.ones(15)
        second = layer(x)[0]
        replacement = nn.GRU(4, 5)
        replacement.load_state_dict(layer.state_dict())
        expected = replacement(x)[0]
    assert fast_path_calls == [True] * 3
    assert not torch.equal(output, second)
    assert torch.equal(second, expected)


class Scaled(cells.Cell):
    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return cells.tanh(x + h) * self.factor


def test_another_cell_has_another_program(fast_path_calls: list[bool]) -> None:
    layer, x = nn.Recurrent(Scaled(), 3, 4), torch.randn(1, 2, 3)
    with torch.no_grad():
        output = layer(x)[0]
        layer.cell = layer.cell.replace(factor=0.5)
        torch.testing.assert_close(layer(x)[0], 0.5 * output)
    assert fast_path_calls == [True, True]


def test_what_is_not_plain_goes_the_usual_way(fast_path_calls: list[bool]) -> None:
    layer, x = nn.GRU(3, 4), torch.randn(2, 2, 3)
    odd = nn.GRU(3, 4)
    odd.weight_hh_l0.data = torch.randn(4, 12).t()
    with torch.no_grad():
        layer(x[0])
        layer.bfloat16()(x.bfloat16()[0])
        layer.float()(x, torch.zeros(1, 2, 8)[..., ::2])
        odd(x)
        torch.nn.utils.parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0")(x)
        with engines.use("reference"):
            layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
        torch.func.vmap(layer, 1, (1, 1))(x)
        nn.Recurrent(cells.AntisymmetricRNN, 3, 4)(x)
        for bad in (x[:0], x[..., :2], x.double()):
            with pytest.raises((RuntimeError, ValueError)):
                layer(bad)
    assert fast_path_calls == [False] * 12


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("with_states", [False, True])
def test_equal_gradients(
    layer_name: str, with_states: bool, fast_path_calls: list[bool], poisoned: None
) -> None:
    layer = LAYERS[layer_name]().double()
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    hx = states(layer, 6 if layer.batch_first else 3, torch.float64) if with_states else None
    leaves = [x, *layer.parameters()]
    if with_states:
        leaves += [s.requires_grad_() for s in (hx if isinstance(hx, tuple) else (hx,))]
    results = []
    for record in (False, True):
        if record:
            with engines.record():
                parts = flat(layer(x, hx))
        else:
            parts = flat(layer(x, hx))
        torch.manual_seed(1)
        output_grads = [torch.randn_like(part) for part in parts]
        first_order = torch.autograd.grad(parts, leaves, output_grads, create_graph=True)
        second = torch.autograd.grad([g.square().sum() for g in first_order], leaves)
        results.append([*parts, *first_order, *second])
    assert fast_path_calls == [True, False]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_only_some_gradients(fast_path_calls: list[bool]) -> None:
    layer, x = nn.LSTM(5, 4), torch.randn(3, 2, 5)
    layer.weight_hh_l0.requires_grad_(False)
    layer(x)[1][1].sum().backward()
    assert fast_path_calls == [True]
    assert layer.weight_hh_l0.grad is None
    assert x.grad is None
    assert layer.weight_ih_l0.grad is not None


def test_layers_are_copied_and_pickled_after_it(fast_path_calls: list[bool]) -> None:
    layer, x = nn.GRU(3, 4), torch.randn(2, 2, 3)
    with torch.no_grad():
        expected = layer(x)[0]
        for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(duplicate(x)[0], expected)


CELLS = {
    "rnn": lambda: nn.RNNCell(5, 7),
    "gru": lambda: nn.GRUCell(5, 7, bias=False),
    "lstm": lambda: nn.LSTMCell(5, 7),
    "peephole": lambda: nn.RecurrentCell(cells.PeepholeLSTM, 5, 7),
}


@pytest.mark.parametrize("layer_name", CELLS)
@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("N", [1, 9])
def test_a_step_of_a_cell(
    layer_name: str, with_states: bool, N: int, fast_path_calls: list[bool], poisoned: None
) -> None:
    """Equal bits, with and without gradient; states without dimensions of layers or time."""
    cell = CELLS[layer_name]()
    x = torch.randn(N, 5, requires_grad=True)
    start = tuple(torch.randn(N, w, requires_grad=True) for w in cell.spec.state_widths)
    hx = None if not with_states else start if len(start) > 1 else start[0]
    leaves = [x, *cell.parameters(), *(start if with_states else ())]
    results = []
    for record in (False, True):
        with contextlib.ExitStack() as stack:
            if record:
                stack.enter_context(engines.record())
            with torch.no_grad():
                plain = cell(x, hx)
            ends = cell(x, hx)
        ends, plain = ((e,) if isinstance(e, Tensor) else e for e in (ends, plain))
        assert all(torch.equal(a, b) for a, b in zip(ends, plain, strict=True))
        output_grads = [torch.cos(torch.arange(end.numel())).view_as(end) for end in ends]
        results.append([*plain, *torch.autograd.grad(ends, leaves, output_grads)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert fast_path_calls == [True, True, False, False]
    assert [end.shape for end in plain] == [(N, width) for width in cell.spec.state_widths]


def test_a_cell_that_was_called_can_be_copied(fast_path_calls: list[bool]) -> None:
    cell, x = nn.GRUCell(3, 4), torch.randn(2, 3)
    expected = cell(x)
    for duplicate in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert torch.equal(duplicate(x), expected)
    for bad in (x[:, :2], x.double()):
        with pytest.raises((RuntimeError, ValueError)):
            cell(bad)
    assert cell(x[0]).shape == (4,)
    assert fast_path_calls == [True] * 3 + [False] * 3
