"""Initial parameters: chrono biases, rotations."""

import math
from typing import Any

import pytest
import torch

from unrolled import cells
from unrolled.cells import Cell, CellError, sigmoid
from unrolled.nn import GRU, LSTM, GRUCell, Recurrent, init

GATED = [
    cell_class
    for name in cells.__all__
    if isinstance(cell_class := getattr(cells, name), type)
    and issubclass(cell_class, Cell)
    and cell_class.forget_gates + cell_class.input_gates
]


@pytest.mark.parametrize("cell_class", GATED)
def test_the_state_is_kept_as_long_as_the_bias_says(cell_class: type[Cell]) -> None:
    """Without inputs and products what is left of a unit's state after a step is σ(b) of it, b the
    drawn bias: as the cell's own step has it."""
    torch.manual_seed(3)
    layer = Recurrent(cell_class, 3, 8, dtype=torch.float64)
    init.chrono_(layer, 50)
    biases = _drawn(layer)
    assert biases.min() >= 0
    assert biases.max() <= math.log(49)
    assert biases.unique().numel() == 8
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "weight" in name or name.startswith("p_"):
                parameter.zero_()
    previous = [torch.full((1, 1, 8), value, dtype=torch.float64) for value in (0.5, 0.25)]
    states = previous[: len(layer.cell.states)]
    memory = len(states) - 1  # h of one state, c of two
    x = torch.zeros(1, 1, 3, dtype=torch.float64)
    ends = []
    for factor in (1.0, 2.0):
        start = [s * factor for s in states]
        _, new_output = layer(x, start[0] if len(start) == 1 else tuple(start))
        ends.append(new_output if len(start) == 1 else new_output[memory])
    # What is written does not depend on the state here, so the difference is what was kept of it.
    change = (ends[1] - ends[0])[0, 0] / states[memory][0, 0]
    if cell_class is cells.STAR:  # squashes what it kept
        change = (ends[1].atanh() - ends[0].atanh())[0, 0] / states[memory][0, 0]
    assert torch.allclose(change, torch.sigmoid(biases), atol=1e-12)


def _drawn(layer: Any) -> torch.Tensor:
    """The bias of the first gate, as it is where the gate keeps the state while open."""
    name = (layer.cell.forget_gates + layer.cell.input_gates)[0]
    sign = 1 if layer.cell.forget_gates else -1
    total = torch.zeros(8, dtype=torch.float64)
    if name in layer.cell.vectors:
        total = getattr(layer, f"{name}_l0").detach().clone()
    else:
        for product, product_spec in layer.cell.products(layer.spec.sizes(0)).items():
            if product_spec.bias and name in product_spec.targets:
                prefix = {"input": "ih", "recurrent": "hh"}.get(product, product)
                blocks = getattr(layer, f"bias_{prefix}_l0").detach().view(-1, 8)
                total = total + blocks[product_spec.targets.index(name)]
    return sign * total


def test_all_layers_and_directions_and_nothing_else_are_set() -> None:
    layer = GRU(3, 5, num_layers=2, bidirectional=True)
    copies = {name: p.detach().clone() for name, p in layer.named_parameters()}
    assert init.chrono_(layer, 20) is layer
    for name, parameter in layer.named_parameters():
        changed = (parameter != copies[name]).view(3, -1).any(1).tolist()
        assert changed == [False, "bias" in name, False]
        if "bias_hh" in name:
            assert parameter[5:10].tolist() == [0.0] * 5


def test_gates_that_work_together_get_one_draw() -> None:
    layer = init.chrono_(LSTM(3, 5), 20)
    i, f, _, _ = layer.bias_ih_l0.view(4, 5)
    assert torch.equal(i, -f)
    cell = init.chrono_(GRUCell(3, 5), 20)
    assert cell.bias_ih[5:10].min() >= 0
    assert not bool(cell.bias_hh[5:10].any())


def test_what_cannot_keep_is_refused() -> None:
    with pytest.raises(
        ValueError, match="layer must have a cell with forget_gates or input_gates, got RNN"
    ):
        init.chrono_(Recurrent(cells.RNN, 3, 4), 20)
    with pytest.raises(ValueError, match="layer must have biases, got none in the gate z"):
        init.chrono_(GRU(3, 4, bias=False), 20)
    with pytest.raises(ValueError, match="steps must be at least 3, got 2"):
        init.chrono_(GRU(3, 4), 2)
    with pytest.raises(TypeError, match=r"layer must be a layer of unrolled.nn, got GRU"):
        init.chrono_(torch.nn.GRU(3, 4), 20)  # type: ignore[arg-type]


def test_a_cell_names_its_own_gates() -> None:
    with pytest.raises(CellError, match="forget_gates must name gates or vectors, got 'w'"):

        class Wrong(Cell):
            gates = ("z", "n")
            forget_gates = ("w",)

    class RenamedGates(cells.GRU):
        gates = ("a", "b")

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return sigmoid(x.a + h.b)

    assert RenamedGates.forget_gates == ()


def test_an_orthogonal_network_starts_at_rotations() -> None:
    torch.manual_seed(1)
    layer = Recurrent(cells.ExpRNN, 3, 6)
    weight = layer.get_parameter("weight_hh_l0").detach()
    angles = weight[::2, 1::2].diagonal()
    assert int((weight != 0).sum()) == int((angles != 0).sum()) == 3
    assert bool((layer.get_parameter("shift_l0") == 0).all())


@pytest.mark.parametrize("K", [1, 2, 7, 8])
def test_rotations_turn_pairs(K: int) -> None:
    torch.manual_seed(0)
    weight = torch.full((K, K), torch.nan, dtype=torch.float64)
    assert init.rotations_(weight) is weight
    Q = cells.matrix_exp(weight - weight.T)
    expected = torch.eye(K, dtype=torch.float64)
    for k in range(0, K - 1, 2):
        angle = weight[k, k + 1].item()
        turn = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        expected[k : k + 2, k : k + 2] = torch.tensor(turn, dtype=torch.float64)
    assert torch.allclose(Q, expected, atol=1e-14)
    assert K < 2 or 0 < weight.abs().max().item() <= math.pi
    with pytest.raises(ValueError, match=r"weight must be square, got shape \[2, 3\]"):
        init.rotations_(torch.zeros(2, 3))
