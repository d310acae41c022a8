"""Measurements of recurrent layers against Jacobians, NumPy, scikit-learn and hand-made numbers."""

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from tests.support.tolerances import close
from unrolled import cells
from unrolled.cells import Cell, mean, product, sigmoid, tanh
from unrolled.diagnostics import (
    activity,
    coloured_text,
    gate_saturation,
    gate_values,
    gradient_by_lag,
    input_gradient_by_lag,
    most_variable,
    parameter_table,
    principal_components,
    recurrent_matrices,
)
from unrolled.diagnostics.steps import layers_of, listening, unroll
from unrolled.models import LanguageModel
from unrolled.nn import GRU, LSTM, RNN, Recurrent

PUBLISHED = [
    getattr(cells, name)
    for name in cells.__all__
    if isinstance(getattr(cells, name), type)
    and issubclass(getattr(cells, name), Cell)
    and name != "Cell"
]


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# Steps


@pytest.mark.parametrize("cell", PUBLISHED)
def test_steps_are_the_layer(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = double(6, 2, 3)
    output, _ = layer(x)
    steps = unroll(layer, x)
    assert [(s.place.layer, s.place.reverse) for s in steps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    close(torch.cat([s.history() for s in steps[2:]], -1), output.detach(), "output")


def test_steps_take_every_form() -> None:
    layer = LSTM(3, 4, num_layers=2, proj_size=2, batch_first=True, dropout=0.5, dtype=torch.double)
    x, hx = double(2, 6, 3), (double(2, 2, 2), double(2, 2, 4))
    output, (h_n, c_n) = layer.eval()(x, hx)
    steps = unroll(layer.train(), x, hx)
    close(steps[1].history().transpose(0, 1), output.detach(), "output")
    close(steps[1].states[-1][0], h_n[1].detach(), "output")
    close(steps[0].history("c")[-1], c_n[0].detach(), "output")
    alone = unroll(layer, x[1], tuple(state[:, 1] for state in hx))
    close(alone[1].history()[:, 0], output[1].detach(), "output")
    summed = GRU(3, 4, num_layers=2, bidirectional=True, merge="sum", dtype=torch.double)
    y = unroll(summed, x.transpose(0, 1))
    wanted, _ = summed(x.transpose(0, 1))
    close(y[2].history() + y[3].history(), wanted.detach(), "output")


def test_steps_name_a_wrong_shape() -> None:
    layer = LSTM(3, 4)
    with pytest.raises(ValueError, match=r"x: wanted \[T, N, I\] or .* I=3, got shape \[5, 2, 2\]"):
        unroll(layer, torch.zeros(5, 2, 2))
    with pytest.raises(ValueError, match=r"hx: wanted 2 of shapes .* got \[\[1, 2, 4\]\]"):
        unroll(layer, torch.zeros(5, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="state: wanted one of h, c, got 'm'"):
        unroll(layer, torch.zeros(5, 2, 3))[0].history("m")


# Gradients by lag


def jacobian_norms(layer: Recurrent, x: Tensor, hx: tuple[Tensor, ...]) -> Tensor:
    """By functions of torch that see the layer alone: whole Jacobians of one step, multiplied."""
    T, N = x.shape[:2]
    widths = [state.shape[-1] for state in hx]
    S = sum(widths)

    def step(s: Tensor, t: int, n: int) -> Tensor:
        given = [part.view(1, 1, -1) for part in s.split(widths)]
        _, after = layer(x[t : t + 1, n : n + 1], given[0] if len(given) == 1 else tuple(given))
        return torch.cat([part.flatten() for part in (after if len(given) > 1 else (after,))])

    squares = torch.zeros(T + 1, dtype=torch.float64)
    for n in range(N):
        states = [torch.cat([state[0, n] for state in hx])]
        for t in range(T):
            states.append(step(states[-1], t, n).detach())
        total = torch.eye(S, dtype=torch.float64)
        squares[0] += total.square().sum()
        for k in range(1, T + 1):
            t = T - k
            one = torch.autograd.functional.jacobian(lambda s, t=t, n=n: step(s, t, n), states[t])
            total = total @ one
            squares[k] += total.square().sum()
    return (squares / (N * S)).sqrt()


@pytest.mark.parametrize(
    "cell", [cells.RNN, cells.LSTM, cells.GRU, cells.CoRNN, cells.PeepholeLSTM]
)
def test_gradient_by_lag_is_the_product_of_jacobians(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0 *= 3  # some that grow, some that shrink
    x = double(7, 2, 3)
    hx = tuple(double(1, 2, width) for width in layer.spec.state_widths)
    wanted = jacobian_norms(layer, x, hx)
    (found,) = gradient_by_lag(layer, x, hx if len(hx) > 1 else hx[0])
    assert found.norms[0] == 1.0
    close(found.norms / wanted, torch.ones_like(wanted), "gradient")
    (short,) = gradient_by_lag(layer, x, hx if len(hx) > 1 else hx[0], lags=3)
    assert torch.equal(short.norms, found.norms[:4])


def test_gradient_by_lag_of_a_linear_recurrence_is_a_power() -> None:
    class Scaled(Cell):
        recurrent = None

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return x + 0.5 * state.h

    (found,) = gradient_by_lag(Recurrent(Scaled, 2, 3), torch.randn(500, 2))
    wanted = torch.tensor([0.5**k for k in range(501)], dtype=torch.float64)
    close(found.norms / wanted, torch.ones_like(wanted), "output")


def test_each_layer_and_direction_is_measured_on_its_own_input() -> None:
    layer = GRU(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = double(5, 2, 3)
    found = gradient_by_lag(layer, x)
    assert [(f.layer, f.reverse) for f in found] == [(0, False), (0, True), (1, False), (1, True)]
    last = GRU(8, 4, dtype=torch.float64)
    names = dict(layer.named_parameters())
    last.load_state_dict(
        {name: names[name.replace("l0", "l1") + "_reverse"] for name in last.state_dict()}
    )
    below = GRU(3, 4, bidirectional=True, dtype=torch.float64)
    below.load_state_dict({name: names[name] for name in below.state_dict()})
    inputs = below(x)[0].detach().flip(0)
    wanted = jacobian_norms(last, inputs, (torch.zeros(1, 2, 4, dtype=torch.float64),))
    close(found[3].norms / wanted, torch.ones_like(wanted), "gradient")


def test_random_directions_estimate_the_whole() -> None:
    layer, x = LSTM(3, 16, dtype=torch.float64), double(6, 2, 3)
    (whole,) = gradient_by_lag(layer, x)
    squares = [gradient_by_lag(layer, x, directions=4, seed=s)[0].norms ** 2 for s in range(200)]
    estimate = torch.stack(squares).mean(0).sqrt()
    assert estimate[0].item() == pytest.approx(1.0, rel=1e-12)
    # 200 draws of 4 out of 32: the mean of squares varies by a few percent.
    assert ((estimate / whole.norms) - 1).abs().max() < 0.05
    before = torch.get_rng_state()
    assert torch.equal(gradient_by_lag(layer, x, directions=32)[0].norms.round(decimals=12),
                       whole.norms.round(decimals=12))  # fmt: skip
    gradient_by_lag(layer, x, directions=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert layer.weight_hh_l0.requires_grad
    assert layer.weight_hh_l0.grad is None


def test_a_cell_that_holds_a_module_is_measured() -> None:
    layer = Recurrent(cells.RNN(nn.PReLU()), 3, 4)
    x = torch.randn(5, 2, 3)
    (found,) = gradient_by_lag(layer, x)
    twin = Recurrent(cells.RNN(nn.PReLU(dtype=torch.double)), 3, 4, dtype=torch.double)
    twin.load_state_dict(layer.state_dict())
    wanted = jacobian_norms(twin, x.double(), (torch.zeros(1, 2, 4, dtype=torch.float64),))
    close(found.norms / wanted, torch.ones_like(wanted), "gradient")
    assert layer.weight_hh_l0.dtype == torch.float32


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_input_gradient_by_lag_agrees_with_finite_differences(kind: type[Recurrent]) -> None:
    layer, x, w = kind(3, 4, dtype=torch.float64), double(5, 2, 3), double(2, 4)

    def loss(x: Tensor) -> Tensor:
        return (layer(x)[0][-1] * w).sum()

    slope, small = torch.zeros_like(x), 1e-6
    for place in np.ndindex(*x.shape):
        nudge = torch.zeros_like(x)
        nudge[place] = small
        slope[place] = ((loss(x + nudge) - loss(x - nudge)) / (2 * small)).detach()
    wanted = [slope[4 - k].square().sum().sqrt().item() for k in range(5)]
    assert input_gradient_by_lag(loss, x).tolist() == pytest.approx(wanted, rel=1e-6)


def test_gradients_name_a_wrong_argument() -> None:
    layer, x = RNN(3, 4), torch.randn(5, 2, 3)
    with pytest.raises(ValueError, match="lags: wanted 1 to the number of steps, 5, got 6"):
        gradient_by_lag(layer, x, lags=6)
    with pytest.raises(ValueError, match="directions: wanted at least 1, got 0"):
        gradient_by_lag(layer, x, directions=0)
    with pytest.raises(ValueError, match=r"loss: wanted one number .* got shape \[5, 2, 4\]"):
        input_gradient_by_lag(lambda x: layer(x)[0], x)
    with pytest.raises(ValueError, match="without a gradient"):
        input_gradient_by_lag(lambda x: x.detach().sum(), x)


# Gates

GATES = {
    "RNN": ["tanh"],
    "LSTM": ["i", "f", "g", "o", "tanh(c)"],
    "GRU": ["r", "z", "n"],
    "ATR": ["i", "f"],
    "BRC": ["a", "c", "n"],
    "JANET": ["g", "f", "f (2)"],
    "LEM": ["a", "b", "z", "y"],
    "MGU": ["f", "n"],
    "NBRC": ["a", "c", "n"],
    "RAN": ["i", "f", "tanh(c)"],
    "SLSTM": ["z", "o"],
    "STAR": ["z", "k", "tanh"],
    "UGRNN": ["c", "g"],
    "ExpRNN": [],
    "AntisymmetricRNN": ["tanh"],
    "CoRNN": ["force"],
    "CoupledLSTM": ["i", "g", "o", "tanh(c)"],
    "FastGRNN": ["z", "n"],
    "FastRNN": ["n"],
    "GatedAntisymmetricRNN": ["z", "n"],
    "IndRNN": [],
    "LayerNormGRU": ["r", "z", "n"],
    "LayerNormLSTM": ["i", "f", "g", "o", "tanh"],
    "LiGRU": ["z"],
    "MinimalRNN": ["z", "u"],
    "MultiplicativeLSTM": ["i", "f", "g", "o", "tanh(c)"],
    "PeepholeLSTM": ["i", "f", "g", "o", "tanh(c)"],
    "ResetBeforeGRU": ["r", "z", "n"],
}


@pytest.mark.parametrize("cell", PUBLISHED)
def test_gates_of_published_cells_have_their_names(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4)
    found = gate_values(layer, torch.randn(5, 2, 3))
    assert [gate.gate for gate in found] == GATES[cell.__name__]
    assert all(gate.values.shape == (5, 2, 4) for gate in found)


def test_gates_of_an_lstm_are_its_equations() -> None:
    layer, x = LSTM(3, 4, dtype=torch.float64), double(6, 2, 3)
    found = {gate.gate: gate.values for gate in gate_values(layer, x)}
    output, _ = layer(x)
    before = torch.cat([torch.zeros_like(output[:1]), output[:-1]])
    summed = x @ layer.weight_ih_l0.T + before @ layer.weight_hh_l0.T
    i, f, g, o = (summed + layer.bias_ih_l0 + layer.bias_hh_l0).detach().chunk(4, -1)
    close(found["i"], i.sigmoid(), "output")
    close(found["f"], f.sigmoid(), "output")
    close(found["g"], g.tanh(), "output")
    close(found["o"], o.sigmoid(), "output")
    close(found["o"] * found["tanh(c)"], output.detach(), "output")


class Own(Cell):
    """Functions of torch, called in three ways; a gate under another name; a step that writes."""

    gates = ("keep", "new")
    scale = cells.vector(1)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        forget = torch.sigmoid(input=x.keep + h.keep)
        fresh = (x.new + h.new).tanh() * cells.sigmoid(self.scale)
        kept = forget * state.h
        forget.zero_()
        both = nn.functional.hardsigmoid(kept + fresh + x.keep + x.new)
        return kept + (1 - forget) * fresh * both


class Inherited(Own):
    def step(self, x: Any, h: Any, state: Any) -> Any:
        return super().step(x, h, state) + 0 * mean(state.h)


@pytest.mark.parametrize("cell", [Own, Inherited])
def test_gates_of_a_cell_of_ones_own(cell: type[Cell]) -> None:
    layer = Recurrent(cell, 3, 4, dtype=torch.float64)
    x = double(1, 2, 3)
    found = gate_values(layer, x)
    assert [(g.gate, g.function) for g in found] == [
        ("keep", "sigmoid"), ("new", "tanh"), ("both", "hard_sigmoid"),
    ]  # fmt: skip
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
    keep, new = (x @ layer.weight_ih_l0.detach().T + bias).chunk(2, -1)
    close(found[0].values, keep.sigmoid(), "output")
    close(found[1].values, new.tanh(), "output")


def test_hard_functions_count_with_their_usual_bounds() -> None:
    x = torch.randn(5, 2, 3)
    for activation, wanted in (
        (nn.Hardtanh(), ["hard_tanh"]),
        (cells.hard_tanh, ["hard_tanh"]),
        (nn.Hardtanh(-2.0, 2.0), []),
        (nn.ReLU6(), []),
        (nn.Softsign(), ["softsign"]),
        (nn.Sigmoid(), ["sigmoid"]),
    ):
        found = gate_values(Recurrent(cells.RNN(activation), 3, 4), x)
        assert [gate.function for gate in found] == wanted


def test_watching_gates_leaves_no_trace() -> None:
    class Wrong(Cell):
        def step(self, x: Any, h: Any, state: Any) -> Any:
            if x.shape[0] == 1:
                raise RuntimeError("no")
            return tanh(x + h)

    before = sys.getprofile()
    with pytest.raises(RuntimeError, match="no"):
        gate_values(Recurrent(Wrong, 2, 2), torch.zeros(3, 1, 2))
    assert sys.getprofile() is before
    assert torch.overrides._get_current_function_mode() is None


def test_saturation_by_hand() -> None:
    class Fixed(Cell):
        """Two gates that are functions of the input alone."""

        gates = ("s", "t")
        recurrent = None

        def step(self, x: Any, h: Any, state: Any) -> Any:
            return sigmoid(x.s) + tanh(x.t)

    layer = Recurrent(Fixed, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(2).repeat(2, 1))
        layer.bias_ih_l0.zero_()
    logit = math.log(0.9 / 0.1)
    # One unit a column; σ(±logit) is 0.9 or 0.1, tanh(±logit / 2) is ±0.8.
    a, b, inside = logit + 0.01, logit / 2 + 0.01, 0.5
    x = torch.tensor([[a, -a], [b, -a], [-a, inside], [-b, inside], [b, b]]).double().unsqueeze(1)
    s, t = gate_saturation(layer, x)
    assert (s.left.tolist(), s.right.tolist()) == ([0.2, 0.4], [0.2, 0.0])
    assert (t.left.tolist(), t.right.tolist()) == ([0.4, 0.4], [0.6, 0.2])
    assert (s.left_share, s.right_share) == (pytest.approx(0.3), pytest.approx(0.1))
    (wide, _) = gate_saturation(layer, x, low=0.3, high=0.7)
    assert (wide.left.tolist(), wide.right.tolist()) == ([0.4, 0.4], [0.6, 0.2])
    with pytest.raises(ValueError, match=r"low < high < 1, got 0\.9, 0\.1"):
        gate_saturation(layer, x, low=0.9, high=0.1)


def test_saturation_is_told_by_layer_and_direction() -> None:
    layer = LSTM(3, 4, num_layers=2, bidirectional=True)
    with torch.no_grad():
        layer.bias_ih_l1_reverse[4:8] = 100.0
    found = gate_saturation(layer, torch.randn(6, 2, 3))
    open_gates = [(s.layer, s.reverse, s.gate) for s in found if s.right_share == 1.0]
    assert open_gates == [(1, True, "f")]


# Matrices


def test_recurrent_matrices_are_those_of_numpy() -> None:
    layer = LSTM(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    found = recurrent_matrices(layer)
    assert [(m.layer, m.reverse, m.gate) for m in found[12:]] == [
        (1, True, gate) for gate in ("i", "f", "g", "o")
    ]
    W = layer.weight_hh_l1_reverse.detach().numpy()
    for k, matrix in enumerate(found[12:]):
        block = W[4 * k : 4 * k + 4]
        assert matrix.radius == pytest.approx(max(abs(np.linalg.eigvals(block))), rel=1e-12)
        wanted = np.linalg.svd(block, compute_uv=False)
        assert matrix.singular.tolist() == pytest.approx(wanted.tolist(), rel=1e-12)


def test_a_prepared_matrix_is_measured_as_it_is_used() -> None:
    layer = Recurrent(cells.AntisymmetricRNN, 3, 4, dtype=torch.float64)
    (found,) = recurrent_matrices(layer)
    assert found.eigenvalues is not None
    assert found.eigenvalues.real.abs().max() < 1e-14
    W = layer.weight_hh_l0.detach()
    assert found.singular[0].item() == pytest.approx(torch.linalg.matrix_norm(W - W.T, 2).item())


def test_blocks_and_products_of_a_cells_own() -> None:
    layer = Recurrent(cells.SLSTM(heads=2), 3, 4, dtype=torch.float64)
    first = recurrent_matrices(layer)[0]
    rows = layer.weight_hh_l0.detach()[:4]
    whole = torch.zeros(4, 4, dtype=torch.float64)
    whole[:2, :2], whole[2:, 2:] = rows[:2], rows[2:]
    close(first.singular, torch.linalg.svdvals(whole), "output")
    names = [(m.product, m.gate) for m in recurrent_matrices(Recurrent(cells.MGU, 3, 4))]
    assert names == [("recurrent", "f"), ("candidate", "")]
    projected = recurrent_matrices(LSTM(3, 4, proj_size=2))
    assert [m.radius for m in projected] == [None] * 4
    assert projected[0].singular.shape == (2,)
    assert recurrent_matrices(Recurrent(cells.IndRNN, 3, 4)) == []


def test_parameter_table() -> None:
    model = LanguageModel(7, 4, cell="GRU", embedding_size=3)
    model.head.weight.data.fill_(2.0)
    rows = {row.name: row for row in parameter_table(model)}
    assert list(rows) == [name for name, _ in model.named_parameters()]
    head = rows["head.weight"]
    assert (head.shape, head.count, head.norm) == ((7, 4), 28, pytest.approx(math.sqrt(28) * 2))
    assert sum(row.count for row in rows.values()) == sum(p.numel() for p in model.parameters())


# Activity


def test_activity_is_the_hidden_state() -> None:
    model = LanguageModel(7, 4, cell="LSTM", num_layers=2, embedding_size=3, dropout=0.5)
    tokens = torch.randint(7, (6, 2))
    model.eval()
    hidden, _ = model.recurrent(model.encoder(tokens))
    model.train()
    close(activity(model, tokens, row=1), hidden[:, 1].detach(), "output")
    assert model.training
    below = LSTM(3, 4)
    states = model.recurrent.state_dict()
    below.load_state_dict({name: states[name] for name in below.state_dict()})
    wanted, (_, c_n) = below(model.encoder(tokens))
    close(activity(model, tokens, layer=0), wanted[:, 0].detach(), "output")
    close(activity(model, tokens, layer=0, state="c")[-1], c_n[0, 0].detach(), "output")
    assert not model.recurrent._forward_pre_hooks


def test_activity_in_reverse_is_in_the_inputs_order() -> None:
    layer, x = GRU(3, 4, bidirectional=True), torch.randn(6, 3)
    output, _ = layer(x)
    close(activity(layer, x, reverse=True), output[:, 4:].detach(), "output")


def test_activity_names_a_wrong_argument() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = GRU(3, 4), GRU(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x)[0]

    model, x = Two(), torch.randn(5, 2, 3)
    close(activity(model, x, name="b"), model(x)[:, 0].detach(), "output")
    for arguments, said in (
        ({}, "one that calls 'a'"),
        ({"name": "c"}, "name: wanted one of 'a', 'b', got 'c'"),
        ({"name": "b", "layer": 1}, "layer: wanted below 1, got 1"),
        ({"name": "b", "reverse": True}, "reverse: wanted False"),
        ({"name": "b", "row": 2}, "row: wanted 0 to 1, got 2"),
        ({"name": "b", "state": "c"}, "state: wanted one of h, got 'c'"),
    ):
        with pytest.raises(ValueError, match=said):
            activity(model, x, **arguments)
    with pytest.raises(ValueError, match="Linear has none"):
        layers_of(nn.Linear(2, 2))


def test_ragged_batches_are_heard_in_their_longest_rows() -> None:
    layer = LSTM(3, 4, batch_first=True)
    x, hx = torch.randn(4, 6, 3), (torch.randn(1, 4, 4), torch.randn(1, 4, 4))
    lengths = [2, 5, 3, 5]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    for given, options in ((x, {"lengths": lengths}), (packed, {})):
        with listening({"": layer}, rows=4) as calls:
            layer(given, hx, **options)
            layer(torch.zeros(1, 1, 3))
        assert torch.equal(calls[""].x, x[[1, 3], :5])
        assert torch.equal(calls[""].hx[1], hx[1][:, [1, 3]])


def test_coloured_text_by_hand() -> None:
    shown = coloured_text("a<b\n&", torch.tensor([0.5, 0.5, 0.0, -0.25, -0.01]))
    assert shown == (
        '<div class="text"><span class="u10">a&lt;</span>b<span class="d5">↵\n</span>&amp;</div>'
    )
    assert coloured_text("\r\0\x7f\t", torch.zeros(4)) == '<div class="text">␍␀␡\t</div>'
    assert coloured_text(["a\n", "b"], torch.zeros(2)) == '<div class="text">a↵\nb</div>'
    assert coloured_text("ab", torch.zeros(2)) == '<div class="text">ab</div>'
    with pytest.raises(ValueError, match=r"a piece for each .* shape \[2\], got 3"):
        coloured_text("abc", torch.zeros(2))


def test_the_most_variable_units_come_first() -> None:
    states = torch.tensor([[0.0, 5.0, 1.0], [0.1, 5.0, -1.0]])
    assert most_variable(states, 2) == [2, 0]
    assert most_variable(states, 9) == [2, 0, 1]


def test_principal_components_are_those_of_scikit_learn() -> None:
    states = double(30, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    found = principal_components(states, 3)
    judge = PCA(3).fit(states.numpy())
    signs = torch.from_numpy(judge.components_ * found.axes.numpy()).sum(1).sign()
    close(found.axes * signs[:, None], torch.from_numpy(judge.components_), "random")
    close(found.points * signs, torch.from_numpy(judge.transform(states.numpy())), "random")
    close(found.explained, torch.from_numpy(judge.explained_variance_ratio_), "random")
    assert (found.axes.gather(1, found.axes.abs().argmax(1, keepdim=True)) > 0).all()
    assert principal_components(torch.ones(3, 2)).explained.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"count: .* got 6 for states of shape \[30, 5\]"):
        principal_components(states, 6)


def test_an_unused_product_is_declared() -> None:
    """A cell's own product that is not square has no radius, and its gate is told."""

    class Narrow(Cell):
        inner = product("a", "b", width=2)
        outer = product(source=2)

        def step(self, x: Any, h: Any, state: Any) -> Any:
            v = self.inner(state.h)
            return tanh(x + h + self.outer(v.a * v.b))

    found = recurrent_matrices(Recurrent(Narrow, 3, 4))
    assert [(m.product, m.gate, m.radius is None) for m in found] == [
        ("recurrent", "", False), ("inner", "a", True), ("inner", "b", True), ("outer", "", True),
    ]  # fmt: skip
