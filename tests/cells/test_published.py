"""Every published cell is what its paper says, on the native and on the reference engine.

``papers`` states the equations again; finite differences are the oracle of gradients.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import papers
from tests.support.papers import Arrays, Step
from tests.support.subjects import gradients, pack, run, states, tokens, unpack
from tests.support.tolerances import close
from unrolled import cells, engines
from unrolled.cells import Cell
from unrolled.nn import Recurrent

T, N, I = 5, 3, 4  # noqa: E741


def itself(v: Any) -> Any:
    return v


CASES: list[tuple[Cell, Callable[[Arrays], Step]]] = [
    (cells.PeepholeLSTM(), papers.peephole_lstm),
    (cells.CoupledLSTM(), papers.coupled_lstm),
    (cells.MultiplicativeLSTM(), papers.multiplicative_lstm),
    (cells.RAN(), partial(papers.ran, np.tanh)),
    (cells.RAN(itself), partial(papers.ran, itself)),
    (cells.SLSTM(), partial(papers.slstm, papers.σ, 1)),
    (cells.SLSTM(heads=2, forget="exp"), partial(papers.slstm, np.exp, 2)),
    (cells.SLSTM(forget="exp"), partial(papers.slstm, np.exp, 1)),
    (cells.ResetBeforeGRU(), papers.reset_before_gru),
    (cells.MGU(), papers.mgu),
    (cells.LiGRU(), papers.ligru),
    (cells.JANET(), partial(papers.janet, 1.0)),
    (cells.JANET(beta=-0.3), partial(papers.janet, -0.3)),
    (cells.UGRNN(), partial(papers.ugrnn, np.tanh)),
    (cells.UGRNN(cells.relu), partial(papers.ugrnn, papers.relu)),
    (cells.MinimalRNN(), papers.minimal_rnn),
    (cells.ATR(), papers.atr),
    (cells.STAR(), papers.star),
    (cells.IndRNN(), partial(papers.ind_rnn, papers.relu)),
    (cells.IndRNN(cells.tanh), partial(papers.ind_rnn, np.tanh)),
    (cells.BRC(), papers.brc),
    (cells.NBRC(), papers.nbrc),
    (cells.AntisymmetricRNN(0.3, 0.2), partial(papers.antisymmetric, 0.3, 0.2, False)),
    (cells.GatedAntisymmetricRNN(0.3, 0.2), partial(papers.antisymmetric, 0.3, 0.2, True)),
    (cells.CoRNN(dt=0.2, gamma=2.7, epsilon=4.7), partial(papers.co_rnn, 0.2, 2.7, 4.7)),
    (cells.LEM(), partial(papers.lem, 1.0)),
    (cells.LEM(dt=0.4), partial(papers.lem, 0.4)),
    (cells.ExpRNN(), papers.exp_rnn),
    (cells.FastRNN(), partial(papers.fast_rnn, np.tanh)),
    (cells.FastRNN(cells.relu), partial(papers.fast_rnn, papers.relu)),
    (cells.FastGRNN(), papers.fast_grnn),
    (cells.LayerNormLSTM(), partial(papers.layer_norm_lstm, 1e-5)),
    (cells.LayerNormGRU(epsilon=0.1), partial(papers.layer_norm_gru, 0.1)),
]


def _layer(cell: Cell) -> Recurrent:
    """A layer of odd size in which every parameter, constants at the start too, is random."""
    H = 6 if getattr(cell, "heads", 1) > 1 else 7
    layer = Recurrent(cell, I, H, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.9, 0.9)
    return layer


def _states(layer: Recurrent) -> Any:
    """Random initial states; a normaliser is positive."""
    parts = states(layer, N)
    return [s.abs() + 0.5 if n == "n" else s for n, s in zip(layer.cell.states, parts, strict=True)]


def _runs() -> list[Any]:
    """Each case on each engine that can run it and is not torch's own."""
    results = []
    for cell, oracle in CASES:
        refusals = engines.explain(_layer(cell), torch.zeros(T, N, I).double()).refusals
        for engine in ("native", "reference"):
            if refusals[engine] is None:
                results.append(pytest.param(cell, oracle, engine, id=f"{cell}-{engine}"))
    return results


RUNS = _runs()


def test_every_published_cell_has_an_oracle() -> None:
    exported = {value for name in cells.__all__ if isinstance(value := getattr(cells, name), type)}
    published = {value for value in exported if issubclass(value, Cell) and value is not Cell}
    assert {type(cell) for cell, _ in CASES} == published - {cells.RNN, cells.LSTM, cells.GRU}


@pytest.mark.parametrize(("cell", "oracle", "engine"), RUNS)
def test_a_cell_is_its_paper(cell: Cell, oracle: Callable[[Arrays], Step], engine: str) -> None:
    layer = _layer(cell)
    x, hx = tokens(T, N, I), _states(layer)
    with engines.use(engine), engines.record() as ran:
        output, *final = run(layer, x, pack(hx))
    assert ran == [engine]
    arrays = {key.removesuffix("_l0"): p.detach().numpy() for key, p in layer.named_parameters()}
    step = oracle(arrays)
    outputs, ends = np.empty((T, *final[0].shape[1:])), [np.empty_like(s.detach()) for s in hx]
    for n in range(N):
        state = tuple(s[0, n].detach().numpy() for s in hx)
        for t in range(T):
            new = step(x[t, n].detach().numpy(), *state)
            state = new if isinstance(new, tuple) else (new,)
            outputs[t, n] = state[0]
        for end, value in zip(ends, state, strict=True):
            end[0, n] = value
    close(output, torch.from_numpy(outputs), "output")
    for name, value, end in zip(cell.states, final, ends, strict=True):
        close(value, torch.from_numpy(end), "output", f"final {name}")


@pytest.mark.parametrize(
    ("cell", "engine"), [pytest.param(*case.values[::2], id=case.id) for case in RUNS]
)
def test_gradients_reach_everything_from_every_state(cell: Cell, engine: str) -> None:
    """Against finite differences; also from final states, and to initial ones that are not zero."""
    layer = _layer(cell)
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Any, *values: Any) -> Any:
        count = len(cell.states)
        parameters = dict(zip(names, values[count:], strict=True))
        output, final = torch.func.functional_call(layer, parameters, (x, pack(values[:count])))
        return output, *unpack(final)

    x, hx = tokens(2, 1, I), [s[:, :1].detach().requires_grad_() for s in _states(layer)]
    with engines.use(engine):
        leaves = [x, *hx, *layer.parameters()]
        assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
        assert gradients(call(*leaves), [x])[0].any()


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("low", [-300.0, 300.0])
def test_exponential_gates_far_from_zero_stay_finite(low: float, engine: str) -> None:
    """In float32, where exp(±100) is already infinite or zero; gradients as well."""
    layer = Recurrent(cells.SLSTM, 3, 4)
    with torch.no_grad():
        layer.bias_ih_l0[:4] = low
    x = torch.randn(6, 2, 3, requires_grad=True)
    with engines.use(engine):
        parts = run(layer, x)
        results = torch.autograd.grad(parts[0].sum(), [x, *layer.parameters()])
    assert all(part.isfinite().all() for part in (*parts, *results))
    assert parts[0].abs().max() <= 1
