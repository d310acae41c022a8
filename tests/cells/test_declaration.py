"""Every cell of the library and of docs/decisions/0002 is built, compared with the same lines on
NumPy, and differentiated twice.

Also here: what a declaration says about parameters, and the functions that equations are made of.
"""

import re
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.declared_cells import CELLS, LIBRARY, PAGE, TwoHeads
from unrolled import cells
from unrolled.cells import Cell, Sizes
from unrolled.cells._bound import BoundCell
from unrolled.nn import Recurrent, RecurrentCell


def test_the_library_holds_the_published_cells_and_the_page_names_them() -> None:
    assert len(LIBRARY) >= 27
    rows = dict(re.findall(r"^\| `(\w+)\.py` \| (.*) \|$", PAGE.read_text(), re.M))
    named = {name: file for file, names in rows.items() for name in names.split(", ")}
    assert named == {name: cell.__module__.split(".")[-1] for name, cell in LIBRARY.items()}


def _unroll(cell: Cell, sizes: Sizes, parameters: dict, x: Any, states: tuple) -> tuple:
    """The definition of a recurrent network, in four lines."""
    bound = BoundCell(cell, sizes, cell.prepare(parameters))
    outputs = []
    for x_t in x:
        states = bound.advance(bound.split_input(bound.project_input(x_t)), states)
        outputs.append(states[0])
    return outputs, states


@pytest.mark.parametrize("name", CELLS)
def test_layer_equals_the_same_lines_on_numpy(name: str) -> None:
    T, N, I, H = 5, 3, 3, 6  # noqa: E741
    layer = Recurrent(CELLS[name], I, H, dtype=torch.float64)
    x = torch.randn(T, N, I, dtype=torch.float64)
    states = tuple(torch.randn(1, N, w, dtype=torch.float64) for w in layer.spec.state_widths)
    if "n" in layer.cell.states:
        states = (states[0], states[1], states[2].abs() + 1, states[3])
    output, final = layer(x, states if len(states) > 1 else states[0])
    arrays = {key: value.detach().numpy() for key, value in layer.named_parameters()}
    plain = {key.removesuffix("_l0"): value for key, value in arrays.items()}
    start = tuple(state[0].numpy() for state in states)
    expected, ends = _unroll(layer.cell, layer.spec.sizes(0), plain, x.numpy(), start)
    np.testing.assert_allclose(output.detach().numpy(), np.stack(expected), rtol=1e-11, atol=1e-12)
    final = final if isinstance(final, tuple) else (final,)
    for value, end in zip(final, ends, strict=True):
        np.testing.assert_allclose(value[0].detach().numpy(), end, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_every_parameter_has_the_numerical_gradient(name: str) -> None:
    layer = Recurrent(CELLS[name], 2, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    named = dict(layer.named_parameters())

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        parameters = dict(zip(named, values, strict=True))
        return torch.func.functional_call(layer, parameters, (x,), {"lengths": [3, 2]})[0]

    assert torch.autograd.gradcheck(run, (x, *named.values()))


@pytest.mark.parametrize("name", CELLS)
def test_every_second_derivative_is_the_numerical_one(name: str) -> None:
    layer = Recurrent(CELLS[name], 2, 4, dtype=torch.float64)
    x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    named = dict(layer.named_parameters())

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        parameters = dict(zip(named, values, strict=True))
        return torch.func.functional_call(layer, parameters, (x,))[0]

    assert torch.autograd.gradgradcheck(run, (x, *named.values()), fast_mode=True)


@pytest.mark.parametrize("name", CELLS)
def test_one_step_module_equals_the_layer(name: str) -> None:
    cell = RecurrentCell(CELLS[name], 3, 6, dtype=torch.float64)
    layer = Recurrent(CELLS[name], 3, 6, dtype=torch.float64)
    layer.load_state_dict({f"{key}_l0": value for key, value in cell.state_dict().items()})
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    hx = None
    outputs = []
    for x_t in x:
        hx = cell(x_t, hx)
        outputs.append(hx[0] if isinstance(hx, tuple) else hx)
    torch.testing.assert_close(torch.stack(outputs), layer(x)[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (
            cells.LSTM(),
            {
                "weight_ih": (20, 3),
                "weight_hh": (20, 2),
                "bias_ih": (20,),
                "bias_hh": (20,),
                "weight_hr": (2, 5),
            },
        ),
        (cells.IndRNN(), {"weight_ih": (5, 3), "bias_ih": (5,), "weight_hr": (2, 5), "u": (5,)}),
    ],
)
def test_parameters_follow_from_the_declaration(
    cell: Cell, expected: dict[str, tuple[int, ...]]
) -> None:
    actual = cell.parameters(Sizes(3, 5, 2))
    assert {name: spec.shape for name, spec in actual.items()} == expected
    assert list(actual) == list(expected)


def test_bias_false_takes_all_biases_and_only_them() -> None:
    assert set(cells.FastGRNN().parameters(Sizes(3, 5, 5), bias=False)) == {
        "weight_ih",
        "weight_hh",
        "zeta",
        "nu",
    }
    layer = Recurrent(cells.FastGRNN, 3, 5, bias=False)
    assert layer(torch.randn(2, 1, 3))[0].isfinite().all()


def test_starting_values_are_the_cells_own() -> None:
    layer = Recurrent(cells.FastRNN, 3, 5)
    assert layer.alpha_l0.tolist() == [-3.0]
    assert layer.beta_l0.tolist() == [3.0]


def test_a_block_diagonal_product_is_the_dense_one_with_zeros() -> None:
    H, blocks, gates = 6, 2, 4
    layer = Recurrent(TwoHeads, 3, H, dtype=torch.float64)
    bound = BoundCell(layer.cell, layer.spec.sizes(0), layer._parameters_of(0))
    v = torch.randn(5, H, dtype=torch.float64)
    dense = torch.zeros(gates, H, H, dtype=torch.float64)
    small = layer.weight_hh_l0.detach().reshape(gates, blocks, H // blocks, H // blocks)
    for k in range(blocks):
        span = slice(k * H // blocks, (k + 1) * H // blocks)
        dense[:, span, span] = small[:, k]
    torch.testing.assert_close(bound._recurrent.stacked(v), v @ dense.flatten(0, 1).T)


FUNCTIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
    "relu": lambda x: np.where(x > 0, x, 0),
    "exp": np.exp,
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "hard_sigmoid": lambda x: np.minimum(np.maximum(x / 6 + 0.5, 0), 1),
    "hard_tanh": lambda x: np.minimum(np.maximum(x, -1), 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_agree_on_torch_numpy_and_paper(name: str) -> None:
    x = np.linspace(-8, 8, 101)
    function = getattr(cells, name)
    np.testing.assert_allclose(function(x), FUNCTIONS[name](x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        function(torch.from_numpy(x)).numpy(), FUNCTIONS[name](x), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("layer_name", ["torch", "numpy"])
def test_functions_of_two_arguments(layer_name: str) -> None:
    make = torch.tensor if layer_name == "torch" else np.array
    x, y = make([1.0, -2.0, 3.0]), make([0.5, 4.0, 3.0])
    assert cells.minimum(x, y).tolist() == [0.5, -2.0, 3.0]
    assert cells.maximum(x, y).tolist() == [1.0, 4.0, 3.0]
    assert cells.minimum(x, 0.0).tolist() == cells.minimum(0.0, x).tolist() == [0.0, -2.0, 0.0]
    assert cells.maximum(x, 0.0).tolist() == cells.maximum(0.0, x).tolist() == [1.0, 0.0, 3.0]
    assert cells.clip(x, -1.0, 2.0).tolist() == [1.0, -1.0, 2.0]
    assert cells.where(x > 0, x, y).tolist() == [1.0, 4.0, 3.0]
    assert cells.mean(x).tolist() == pytest.approx([2 / 3])
    assert cells.sqrt(cells.exp(cells.log(x * x))).tolist() == pytest.approx([1.0, 2.0, 3.0])


def test_functions_raise_without_an_array() -> None:
    with pytest.raises(TypeError, match=r"sigmoid: x must be a torch tensor, .* got str"):
        cells.sigmoid("x")


def test_a_subclass_of_tensor_is_a_tensor() -> None:
    class Mine(torch.Tensor):
        pass

    assert isinstance(cells.tanh(torch.zeros(2).as_subclass(Mine)), Mine)
